"""Runs the checks one after another and prints how long each took: what `make test` does once its environment stands.

    python tools/check.py                     # all
    python tools/check.py types pytest        # only these
    python tools/check.py pytest -- -k demo   # what follows -- goes to pytest

Every stage runs, also after one has failed, so that one run shows all there is to mend.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ALL = ["-m", "not slow", "-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadfile", "--no-loadscope-reorder"]
"""What pytest is given by default: a process for each core, up to four, and each file within one of them, for its fixtures. Files
go in the order of `testpaths`, the longest first, so that no core waits for the other at the end."""

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["core/modelport", *sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("libs/*/src"), *ROOT.glob("plugins/*/*/src")])]


def stages(pytest_args: list[str]) -> dict[str, list[str]]:
    """The command of each stage, by name, quick ones first."""
    python = sys.executable
    scripts = Path(python).parent
    return {
        "lint": [python, "-m", "ruff", "check", "."],
        "format": [python, "-m", "ruff", "format", "--check", "."],
        "types": [python, "-m", "mypy", *SOURCES],
        "layers": [str(scripts / "lint-imports"), "--no-cache"],  # its cache misses changes that keep a file's time
        "pytest": [python, "-m", "pytest", *pytest_args],
    }


def environment() -> dict[str, str]:
    """The present variables, with every source root where mypy looks: a plugin that is added needs no line of configuration."""
    roots = [str(ROOT / source) for source in SOURCES[1:]]
    return {**os.environ, "MYPYPATH": os.pathsep.join(roots), "OMP_WAIT_POLICY": "PASSIVE"}


def main() -> int:
    """Runs the stages that the command line names, or all; the number of failures decides the status."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    chosen, pytest_args = words[:cut], words[cut + 1 :] or ALL
    commands = stages(pytest_args)
    unknown = [name for name in chosen if name not in commands]
    if unknown:
        print(f"no such stage: {', '.join(unknown)}; there are {', '.join(commands)}", file=sys.stderr)
        return 2
    results = []
    for name in chosen or commands:
        print(f"── {name}", flush=True)
        began = time.monotonic()
        code = subprocess.run(commands[name], cwd=ROOT, env=environment(), check=False).returncode
        results.append((name, code, time.monotonic() - began))
    print("── summary")
    for name, code, seconds in results:
        print(f"{name:8} {seconds:7.1f} s  {'ok' if code == 0 else f'FAILED ({code})'}")
    return 1 if any(code for _, code, _ in results) else 0


if __name__ == "__main__":
    sys.exit(main())
