"""`modelport explain`: where a model would run, and why there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from modelport.core.cli.options import config_option, json_option

if TYPE_CHECKING:
    from modelport.core.placement.record import PlacementRecord

__all__ = ["command"]


@click.command("explain")
@click.argument("model")
@click.option("--backend", metavar="NAME", help="As if the configuration asked for this backend or device.")
@click.option("--dtype", metavar="TYPE", help="As if the configuration asked for this type.")
@config_option
@json_option
def command(model: str, backend: str | None, dtype: str | None, config: Path | None, as_json: bool) -> None:
    """Explain where a model would run, and why there.

    Shows every skill's claim and every place that was weighed, each with its reason. The checkpoint is fetched if need be,
    and not loaded. MODEL is a configured name, or a source as `serve` takes them. Of a running server, ask
    `/v1/models/MODEL/placement`, which also tells what the load gave.

    Examples:

    - `modelport explain ./my-model`
    - `modelport explain org/model --backend cuda --json`
    """
    from modelport.core.cli.output import print_json, print_table
    from modelport.core.cli.parts import assemble
    from modelport.core.cli.placing import place

    parts = assemble(config, model, {"backend": backend, "dtype": dtype})
    explanation = asyncio.run(place(parts))
    if as_json:
        print_json(explanation)
        return
    claims = [(claim.skill, claim.state, claim.tasks, claim.score or "", claim.reason) for claim in explanation.claims]
    print_table(("skill", "says", "tasks", "score", "reason"), claims, "No skill is installed.")
    for record in explanation.placements:
        _print(record)


def _print(record: PlacementRecord) -> None:
    from modelport.core.cli.output import bytes_text, print_table

    click.echo(f"\n{record.model}: skill {record.skill}, tasks {', '.join(record.tasks)}")
    click.echo(f"{record.decision}.\n")
    print_table(
        ("place", "backend", "devices", "answer", "dtype", "memory", "measured", "reason"),
        [
            (
                *(c.place or "out", c.backend or "none", c.devices, c.answer, c.dtype),
                bytes_text(c.memory_bytes) if c.memory_bytes else "",
                f"{1000 * c.latency_s:.1f} ms" if c.latency_s is not None else "",
                c.reason,
            )
            for c in record.candidates
        ],
        "No backend is installed. Try: pip install modelport-backend-cpu",
    )
