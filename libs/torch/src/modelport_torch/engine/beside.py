"""Two engines over one model: the stepped one, and static batches for what it does not do."""

from __future__ import annotations

from modelport.contract.generate import EngineLoad, GenerateEvent, GenerateRequest
from modelport_torch.engine.engine import TorchEngine
from modelport_torch.engine.static import StaticEngine

__all__ = ["BesideEngine"]


class BesideEngine:
    """Sends requests with beams, or with whole inputs, to static batches and all others to the stepped engine; both take turns.

    A prompt of images has positions and masks that are the model's own affair: its `generate` knows them.
    """

    how = "engine; beams, and prompts of more than text, in static batches"

    def __init__(self, stepped: TorchEngine, static: StaticEngine) -> None:
        self.stepped, self._static = stepped, static
        self.max_length = stepped.max_length
        self.prefix_tokens = stepped.prefix_tokens
        self.params = stepped.params

    def add(self, request: GenerateRequest) -> None:
        """Queues a request where it belongs."""
        is_static = bool(request.whole) or (request.params.num_beams or 1) > 1
        (self._static if is_static else self.stepped).add(request)

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
