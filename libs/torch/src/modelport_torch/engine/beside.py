"""Two engines over one model: the stepped one, and static batches for what it does not do."""

from __future__ import annotations

import logging
from typing import Any

import torch

from modelport.contract.errors import ConfigurationError
from modelport.contract.generate import EngineLoad, GenerateEvent, GenerateRequest
from modelport_torch.engine.check import check_whole
from modelport_torch.engine.engine import TorchEngine
from modelport_torch.engine.static import StaticEngine
from modelport_torch.memory import is_out_of_memory

__all__ = ["BesideEngine"]

_log = logging.getLogger(__name__)


class BesideEngine:
    """Sends requests with beams to static batches, and prompts of more than text where the model, stepped after one, says other
    things than by itself; all others go to the stepped engine. Both take turns.

    Whether such prompts can be stepped is tried with the first of each kind, by the names of what it brings.

    Args:
        model: The model of both.
        device: Where it is.
    """

    how = "engine; beams in static batches, and prompts of more than text that cannot be stepped"

    def __init__(self, stepped: TorchEngine, static: StaticEngine, model: Any, device: torch.device) -> None:
        self.stepped, self._static = stepped, static
        self.max_length = stepped.max_length
        self.prefix_tokens = stepped.prefix_tokens
        self.params = stepped.params
        self._model = model
        self._device = device
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._steps: dict[frozenset[str], bool] = {}

    def add(self, request: GenerateRequest) -> None:
        """Queues a request where it belongs."""
        is_static = (request.params.num_beams or 1) > 1 or (bool(request.whole) and not self._can_step(request))
        (self._static if is_static else self.stepped).add(request)

    def _can_step(self, request: GenerateRequest) -> bool:
        ids = request.inputs.get("input_ids")
        # Marks of images may lie above what the engine counts as tokens.
        if request.prompt_logprobs is not None or ids is None or not ids.size or int(ids.max()) >= self._vocabulary:
            return False
        if int(ids.shape[-1]) >= self.max_length:
            return True  # which says what is wrong with it
        kind = frozenset(request.inputs)
        if kind not in self._steps:
            try:
                check_whole(self._model, self._device, request)
                self._steps[kind] = True
            except ConfigurationError as error:
                self._steps[kind] = False
                _log.warning("Prompts with %s run in static batches: %s", ", ".join(sorted(request.whole)), error.message)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return False  # one prompt too large says nothing of others
        return self._steps[kind]

    def cancel(self, id: int, index: int | None = None) -> None:
        """Ends a request, or one choice of it."""
        self.stepped.cancel(id, index)
        self._static.cancel(id, index)

    def step(self) -> list[GenerateEvent]:
        """A step of both."""
        return self.stepped.step() + self._static.step()

    def load(self) -> EngineLoad:
        """Both together; the cache is the stepped engine's."""
        stepped, static = self.stepped.load(), self._static.load()
        return EngineLoad(
            running=stepped.running + static.running,
            waiting=stepped.waiting + static.waiting,
            cache_used=stepped.cache_used,
            cache_total=stepped.cache_total,
        )

    def close(self) -> None:
        """Ends what runs in a static batch."""
        self._static.close()
