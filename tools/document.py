"""Writes the parts of the documentation that are made from code: the table of keys, and blocks that show a file.

    python tools/document.py           # rewrites the pages
    python tools/document.py --check   # names the pages that would change; the status is 1 if there are any

A page marks what is made with comments, which are not seen once it is rendered. `keys` is the table of the configuration's keys;
any other word is the path of a file from the root of the repository::

    <!-- made from examples/openai_chat.py -->
    <!-- end -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modelport.core.config.show import KeyHelp, describe, toml_text

ROOT = Path(__file__).resolve().parent.parent
MADE = re.compile(r"^<!-- made from (?P<source>\S+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml"}


def pages() -> list[Path]:
    """Every page that may have such parts."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def written(page: str) -> str:
    """The text of a page with every made part as it should be."""
    return MADE.sub(lambda match: f"<!-- made from {match['source']} -->\n{made(match['source'])}\n<!-- end -->", page)


def made(source: str) -> str:
    """What stands between the marks."""
    if source == "keys":
        return key_tables(describe())
    file = ROOT / source
    if not file.is_file():
        raise SystemExit(f"A page shows {source}, and there is no such file.")
    return f"```{LANGUAGES.get(file.suffix, '')}\n{file.read_text(encoding='utf-8').rstrip()}\n```"


def key_tables(keys: Iterable[KeyHelp]) -> str:
    """One table for each table of the configuration, the keys of none first."""
    tables: dict[str, list[KeyHelp]] = {"": []}
    for key in keys:
        tables.setdefault(key.key.rpartition(".")[0], []).append(key)
    return "\n\n".join(_table(name, rows) for name, rows in tables.items())


def _table(name: str, keys: list[KeyHelp]) -> str:
    head = f"### `[{name}]`" if name else "### No table"
    rows = [f"| `{key.key.rpartition('.')[2]}` | {key.takes} | {_default(key)} | {_cell(key.help)} |" for key in keys]
    return "\n".join([head, "", "| key | takes | default | meaning |", "|---|---|---|---|", *rows])


def _default(key: KeyHelp) -> str:
    """The default as TOML writes it; nothing where there is none."""
    return "" if key.default is None else f"`{_toml(key.default)}`"


def _toml(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}" if value >= 100_000 else str(value)
    return toml_text(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Rewrites, or with `--check` only names, the pages that are not as they should be."""
    stale = [page for page in pages() if written(text := page.read_text(encoding="utf-8")) != text]
    for page in stale:
        print(page.relative_to(ROOT))
        if "--check" not in sys.argv[1:]:
            page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
