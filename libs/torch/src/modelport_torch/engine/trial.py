"""Whether steps as graphs give what steps as they are give, and are faster: tried when a model is loaded."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from modelport.contract.errors import ConfigurationError
from modelport_torch.choice import Choice, decide
from modelport_torch.engine.cache import SlotCache
from modelport_torch.engine.check import TOLERANCE, prompts
from modelport_torch.engine.graphs import Recorder, recorder_of
from modelport_torch.engine.model import SteppedModel

__all__ = ["try_graphs"]

_ROWS = 3
_STEPS = 12
_FIRST = 4  # steps that are not timed: the first records


def try_graphs(wanted: Choice, model: Any, device: torch.device) -> tuple[Callable[[], Recorder] | None, str]:
    """What records steps of `model`, or None if they are to run as they are; and why, for the placement record.

    Raises:
        ConfigurationError: under `on`, if they cannot be recorded, or then answer otherwise.
    """
    if wanted == "off":
        return None, ""
    recorder = recorder_of(device)
    if recorder is None:
        return None, f"as it is: torch has no graphs on {device.type}"
    reference, plain_s, _ = _drive(SteppedModel(model, device, SlotCache(4, 1024)), device)
    logits, graphs_s, why_not = _drive(SteppedModel(model, device, SlotCache(4, 1024), recorder), device)
    distance = float(((logits - reference).norm(dim=-1) / reference.norm(dim=-1).clamp(min=1e-12)).max())
    if not why_not and not distance <= TOLERANCE.get(model.dtype, 0.1):  # also if it is not a number
        why_not = f"its logits differ (relative error {distance:.2g})"
    if why_not and wanted == "on":
        raise ConfigurationError(
            f"steps of this model cannot be graphs ({why_not}); compile = 'auto' would run them as they are.", param="compile"
        )
    if why_not:
        return None, f"as it is, graphs were tried: {why_not}"
    keep, times = decide(wanted, plain_s, graphs_s)
    return (recorder, f"graphs: {times}") if keep else (None, f"as it is, graphs would not pay: {times}")


@torch.inference_mode()
def _drive(model: SteppedModel, device: torch.device) -> tuple[torch.Tensor, float, str]:
    """Some steps: their logits, how long one takes, and why graphs are not used, if they were to be."""
    rows = prompts(model.vocabulary, _ROWS)
    model.prefill(rows, 0, (_ROWS, max(len(row.prompt) for row in rows)))
    logits, times = [], []
    for step in range(_STEPS):
        for row in rows:
            row.tokens.append((11 + step) % model.vocabulary)
        start = time.perf_counter()
        logits.append(model.advance(rows, _ROWS).to("cpu", torch.float32, copy=True))
        times.append(time.perf_counter() - start)
    why_not = model.graphs.why_not if model.graphs is not None else ""
    model.release()
    return torch.stack(logits), statistics.median(times[_FIRST:]), why_not
