"""Calls deciding and observing hooks one plugin at a time, so that one that raises is skipped and not the end of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pluggy
import structlog

from modelport.contract.extension import Candidate

__all__ = ["Hooks"]

_log = structlog.get_logger("modelport.placement")


class Hooks:
    """The hooks that the running server calls.

    Args:
        manager: Holds the enabled plugins, registered so that pluggy's own order is the configuration's, then by name.
    """

    def __init__(self, manager: pluggy.PluginManager) -> None:
        # pluggy asks the last registered first
        self._choosers = list(reversed(manager.hook.choose_placement.get_hookimpls()))
        self._listeners = list(reversed(manager.hook.model_state_changed.get_hookimpls()))

    def choose_placement(self, model: str, candidates: Sequence[Candidate]) -> Sequence[int] | None:
        """The first answer that is not None and makes sense."""
        for implementation in self._choosers:
            answer = self._call(implementation, {"model": model, "candidates": candidates})
            if answer is None:
                continue
            if isinstance(answer, Sequence) and all(isinstance(i, int) and 0 <= i < len(candidates) for i in answer):
                return answer
            _log.error("choose_placement answered nonsense", plugin=implementation.plugin_name, candidates=len(candidates))
        return None

    def model_state_changed(self, model: str, state: str, reason: str) -> None:
        """Tells every plugin."""
        for implementation in self._listeners:
            self._call(implementation, {"model": model, "state": state, "reason": reason})

    def _call(self, implementation: Any, arguments: dict[str, Any]) -> Any:
        try:
            return implementation.function(*(arguments[name] for name in implementation.argnames))
        except Exception:
            _log.exception("hook failed", hook=implementation.function.__name__, plugin=implementation.plugin_name)
            return None
