"""A program without its reductions: what is converted, so that programs which differ in them alone share a conversion. Pure."""

from __future__ import annotations

import msgspec

from modelport.contract.program import At, Forward, Output, Program

__all__ = ["bare"]


def bare(program: Program) -> Program:
    """`program` with the models' own outputs only, under their own names, and without inputs that only reductions read."""
    return msgspec.structs.replace(
        program, entries={name: _bare(entry) if isinstance(entry, Forward) else entry for name, entry in program.entries.items()}
    )


def _bare(entry: Forward) -> Forward:
    rows = {step.index for output in entry.outputs for step in output.chain if isinstance(step, At)}
    sources = dict.fromkeys(output.source or output.name for output in entry.outputs)
    return msgspec.structs.replace(
        entry,
        inputs=tuple(spec for spec in entry.inputs if spec.name not in rows),
        outputs=tuple(Output(source) for source in sources),
    )
