"""Where a model may run and where it shall: pure, data in, decision out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from modelport.contract.backend import Backend, Verdict
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.errors import ModelportError
from modelport.contract.extension import Candidate
from modelport.contract.program import Program
from modelport.core.config.settings import MemorySettings, ModelSettings
from modelport.core.placement.measured import Measured

__all__ = ["Choose", "Placement", "Weighed", "budgets", "decide", "readable_bytes"]

Choose = Callable[[str, Sequence[Candidate]], Sequence[int] | None]
"""The hook `choose_placement`, as far as it is not None: indices into candidates, best first."""


Pick = Callable[[Sequence[str]], str | None]
"""Which of several places, best first, to try at first; None leaves them as they are."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """A backend on devices, and what speaks for or against it. `place` counts from 0, best first; None is out."""

    candidate: Candidate
    reason: str
    place: int | None = None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A decision: everything that was weighed, what to try in which order, and why in a sentence."""

    weighed: tuple[Weighed, ...]
    order: tuple[Candidate, ...]
    sentence: str


def decide(
    *,
    name: str,
    model: ModelSettings,
    card: ModelCard,
    program: Program | None,
    backends: Mapping[str, Backend],
    probes: Mapping[str, Probe],
    budgets: Mapping[str, int] | None = None,
    hardware: str = "",
    measured: Mapping[str, Measured] | None = None,
    failing: Mapping[str, str] | None = None,
    pick: Pick | None = None,
    choose: Choose | None = None,
) -> Placement:
    """Weighs every enabled backend on every device.

    Policy: what the request or `models.NAME.backend` asks for and nothing else; then the order of `models.NAME.backends`;
    then the measured latency, among those that have one; then the backends' own rank. The hook may reorder the result.

    Args:
        name: The model.
        model: Its configuration.
        card: Its checkpoint.
        program: What is to run; None needs no backend.
        backends: Enabled ones, by name.
        probes: What each found.
        budgets: Most bytes of models per device id.
        hardware: The backend or device that a request names; goes before the configuration.
        measured: What is known of this model, by place. More memory than a backend estimates is believed.
        failing: Backends or places that failed again and again while running this model, with the reason; they go last.
        pick: May put another place first among the best that are interchangeable.
        choose: The hook.
    """
    if program is None:
        verdict = Verdict(answer="yes", reason="the skill has no program and needs no backend")
        only = Candidate(backend="", devices=(), verdict=verdict, rank=0)
        return Placement(
            weighed=(Weighed(candidate=only, reason=verdict.reason, place=0),),
            order=(only,),
            sentence=f"{name} needs no backend: its skill computes by itself",
        )
    asked = hardware or model.backend or ""
    able: list[Candidate] = []
    unable: list[Weighed] = []
    for backend in backends.values():
        probe = probes.get(backend.name, Probe(reason="it has not been probed yet"))
        if not probe.devices:
            absent = _candidate(backend, (), Verdict(answer="no", reason=probe.reason or "no device was found"))
            unable.append(Weighed(candidate=absent, reason=absent.verdict.reason))
        for device in probe.devices:
            candidate = _candidate(backend, (device,), _judge(backend, program, card, device, model.dtype))
            budget = (budgets or {}).get(device.id)
            candidate = _corrected(candidate, (measured or {}).get(candidate.place), budget)
            objection = _objection(candidate, device, model, asked, budget)
            if objection is None:
                able.append(candidate)
            else:
                unable.append(Weighed(candidate=candidate, reason=objection))
    order = _by_policy(able, model, {} if model.strict else dict(failing or {}), pick)
    chosen, hook = _ask(choose, name, order)
    weighed = [
        Weighed(candidate=candidate, reason=_praise(candidate, failing or {}), place=place)
        for place, candidate in enumerate(chosen)
    ]
    weighed += [
        Weighed(candidate=candidate, reason="a plugin's choose_placement left it out")
        for candidate in order
        if candidate not in chosen
    ]
    return Placement(
        weighed=(*weighed, *unable),
        order=tuple(chosen),
        sentence=_sentence(name, asked, model, chosen, hook, unable, {} if model.strict else dict(failing or {})),
    )


def budgets(memory: MemorySettings, devices: Sequence[Device]) -> dict[str, int]:
    """Most bytes of models per device id: as configured for the device, else for its backend, else a part of what was free."""
    return {
        device.id: memory.budget_bytes.get(device.id)
        or memory.budget_bytes.get(device.backend)
        or int(device.memory_free_bytes * memory.fraction)
        for device in devices
    }


def readable_bytes(count: int) -> str:
    """`count` for people: `1.5 GB`."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _candidate(backend: Backend, devices: tuple[Device, ...], verdict: Verdict) -> Candidate:
    return Candidate(backend=backend.name, devices=devices, verdict=verdict, rank=backend.rank)


def _judge(backend: Backend, program: Program, card: ModelCard, device: Device, dtype: str) -> Verdict:
    try:
        return backend.verdict(program, card, (device,), dtype)
    except ModelportError as error:
        return Verdict(answer="no", reason=error.message)
    except Exception as error:  # a plugin's defect must not hide the others
        return Verdict(answer="no", reason=f"its verdict raised {type(error).__name__}: {error}")


def _objection(candidate: Candidate, device: Device, model: ModelSettings, asked: str, budget: int | None) -> str | None:
    """Why a candidate is out, or None."""
    verdict = candidate.verdict
    if asked and asked not in (candidate.backend, device.id):
        return f"{asked!r} was asked for, and this is another"
    if not asked and model.backends and not {candidate.backend, device.id} & set(model.backends):
        return f"not among the configured backends ({', '.join(model.backends)})"
    if not verdict.runs:
        return verdict.reason
    missing = sorted(set(model.require) - verdict.params)
    if missing:
        return f"does not honour what the configuration requires: {', '.join(missing)}"
    if budget is not None and verdict.memory_bytes > budget:
        need, room = readable_bytes(verdict.memory_bytes), readable_bytes(budget)
        return f"needs {need}, and {device.id} may hold {room}; raise memory.budget_bytes, or lower max_length or max_items"
    return None


def _corrected(candidate: Candidate, known: Measured | None, budget: int | None) -> Candidate:
    """The candidate with what was measured of it. What did not fit once gets the whole budget, and is not refused for it."""
    if known is None:
        return candidate
    verdict = candidate.verdict
    took = known.memory_bytes if budget is None else min(known.memory_bytes, budget)
    if verdict.runs and took > verdict.memory_bytes:
        verdict = msgspec.structs.replace(verdict, memory_bytes=took)
    return msgspec.structs.replace(candidate, verdict=verdict, latency_s=known.latency_s)


def _by_policy(
    candidates: Sequence[Candidate], model: ModelSettings, failing: Mapping[str, str], pick: Pick | None
) -> list[Candidate]:
    def merit(candidate: Candidate) -> tuple[int, int, int, int]:
        ids = [candidate.backend, *(device.id for device in candidate.devices)]
        listed = [model.backends.index(place) for place in ids if place in model.backends]
        return (
            int(any(place in failing for place in (*ids, candidate.place))),
            min(listed, default=len(model.backends)),
            candidate.rank,
            candidate.devices[0].index,
        )

    ranked = sorted(candidates, key=merit)
    # Only those that were measured can be compared by measurement: they trade places among themselves, within one configured
    # rank.
    for group in {merit(candidate)[:2] for candidate in ranked}:
        spots = [i for i, candidate in enumerate(ranked) if merit(candidate)[:2] == group and candidate.latency_s is not None]
        measured = sorted((ranked[i] for i in spots), key=lambda candidate: candidate.latency_s or 0.0)
        for spot, candidate in zip(spots, measured, strict=True):
            ranked[spot] = candidate
    alike = [candidate for candidate in ranked if merit(candidate)[:2] == merit(ranked[0])[:2]]
    picked = pick([candidate.place for candidate in alike]) if pick is not None and len(alike) > 1 else None
    return sorted(ranked, key=lambda candidate: candidate.place != picked)


def _ask(choose: Choose | None, name: str, order: list[Candidate]) -> tuple[list[Candidate], bool]:
    answer = choose(name, order) if choose is not None and order else None
    if answer is None:
        return order, False
    picked = [order[index] for index in dict.fromkeys(answer) if 0 <= index < len(order)]
    return picked, True


def _praise(candidate: Candidate, failing: Mapping[str, str]) -> str:
    bad = [failing[place] for place in (candidate.backend, candidate.place) if place in failing]
    return f"{candidate.verdict.reason}; but {bad[0]}" if bad else candidate.verdict.reason


def _sentence(
    name: str,
    asked: str,
    model: ModelSettings,
    chosen: Sequence[Candidate],
    hook: bool,
    unable: Sequence[Weighed],
    failing: Mapping[str, str],
) -> str:
    if not chosen:
        reasons = "; ".join(f"{w.candidate.place}: {w.reason.rstrip('.')}" for w in unable) or "no backend is enabled"
        return f"{name} can run nowhere. {reasons}"
    first = chosen[0]
    avoided = [other.place for other in chosen[1:] if other.place in failing and first.place not in failing]
    if avoided:
        return f"{name} runs on {first.place}, because it failed elsewhere: " + "; ".join(
            f"{place}: {failing[place]}" for place in avoided
        )
    if hook:
        why = "a plugin's choose_placement put it first"
    elif asked:
        why = f"{asked!r} was asked for"
    elif model.backends:
        why = "it comes first in models.*.backends of those that can"
    elif len(chosen) == 1:
        why = "it is the only place that can"
    elif first.latency_s is not None and any(other.latency_s is not None for other in chosen[1:]):
        why = "it was measured to be the fastest"
    else:
        why = f"it has the best rank ({first.rank}) of the {len(chosen)} places that can"
    return f"{name} runs on {first.place}: {why}"
