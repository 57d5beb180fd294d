"""docs/families.md, from the findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from pairs import HERE, Pair
from results import Results

PAGE, README = HERE.parents[1] / "docs/families.md", HERE.parents[1] / "README.md"
_COUNT = re.compile(r"\d+ of \d+ model types, \d+ of \d+ pairs of a type and a head\.")

_HEAD = """# Families

Written by `make sweep` with transformers {version}. Verified on the backend cpu: {count}

A pair is verified when a tiny model of that type with random weights was loaded and served by a real worker, three requests of
different size at once, and every answer agreed with transformers' own model on that input alone: the same greedy tokens, labels,
boxes and spans, and vectors whose cosine is at least 0.999. What cannot be built counts against the number like what fails.
`modelport models families --json` has the same findings for each family.

{backends}

| task | head | verified | fails | refused | no skill | cannot be built | through HTTP |
|---|---|---|---|---|---|---|---|
{tasks}

## Pairs

{table}

## Why not

{notes}
"""


def write(pairs: Sequence[Pair], results: Results) -> None:
    """The page, and the sentence of the README that counts."""
    PAGE.write_text(page(pairs, results), encoding="utf-8")
    README.write_text(_COUNT.sub(_count(pairs, results), README.read_text(encoding="utf-8")), encoding="utf-8")


def page(pairs: Sequence[Pair], results: Results) -> str:
    """Its text."""
    count = _count(pairs, results)
    backends = sorted({backend for found in results.pairs.values() for backend in found}, key=lambda name: (name != "cpu", name))
    state = {pair: results.pairs.get(pair.name, {}).get("cpu", {}).get("status", "not tried") for pair in pairs}
    heads = Counter((pair.task, pair.head, state[pair]) for pair in pairs)
    tasks = []
    for task, head in dict.fromkeys((pair.task, pair.head) for pair in pairs):
        verified, *others = (
            heads[task, head, found] for found in ("verified", "fails", "refused", "no skill", "cannot be built")
        )
        counts = [f"{verified} of {sum(pair.head == head for pair in pairs)}", *map(str, others), _http(results.http.get(task))]
        tasks.append(f"| {task} | {head} | {' | '.join(counts)} |")
    reasons: dict[str, int] = {}
    rows = []
    for pair in sorted(pairs, key=lambda pair: pair.name):
        cells = [_cell(results.pairs.get(pair.name, {}).get(backend), reasons) for backend in backends]
        rows.append(f"| {pair.model_type} | {pair.task} | {pair.head} | {' | '.join(cells)} |")
    table = f"| model type | task | head | {' | '.join(backends)} |\n|---|---|---|{'---|' * len(backends)}\n" + "\n".join(rows)
    return _HEAD.format(
        version=results.transformers,
        count=count,
        backends=_others(pairs, results, backends),
        tasks="\n".join(tasks),
        table=table,
        notes="\n".join(f"{number}. {reason}" for reason, number in reasons.items()) or "All are verified.",
    )


def _count(pairs: Sequence[Pair], results: Results) -> str:
    verified = [pair for pair in pairs if results.pairs.get(pair.name, {}).get("cpu", {}).get("status") == "verified"]
    types, all_types = ({pair.model_type for pair in some} for some in (verified, pairs))
    return f"{len(types)} of {len(all_types)} model types, {len(verified)} of {len(pairs)} pairs of a type and a head."


def _others(pairs: Sequence[Pair], results: Results, backends: Sequence[str]) -> str:
    """A sentence on each further backend."""
    said = []
    for backend in backends[1:]:
        found = [results.pairs[pair.name][backend]["status"] for pair in pairs if backend in results.pairs.get(pair.name, {})]
        refused = f" {found.count('refused')} are refused before they are served, with a reason." if "refused" in found else ""
        said.append(f"On {backend}, {found.count('verified')} of {len(found)} pairs that were tried are verified.{refused}")
    return " ".join(said)


def _cell(found: dict[str, str] | None, reasons: dict[str, int]) -> str:
    if found is None:
        return "–"
    if found["status"] == "verified":
        return "verified"
    reason = " ".join(found["reason"].split()).replace("|", "\\|").replace("<", "&lt;")
    return f"{found['status']} ({reasons.setdefault(reason, len(reasons) + 1)})"


def _http(found: dict[str, str] | None) -> str:
    """What came of the one pair of a task that was asked through a server."""
    if found is None:
        return "–"
    return found["pair"].partition("/")[0] if found["status"] == "verified" else f"{found['pair']} fails: {found['reason']}"
