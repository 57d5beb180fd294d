"""The host's cores as a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from modelport.contract.backend import LoadContext
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.program import Program
from modelport_backend_cpu.host import Host
from modelport_torch.backend import TorchBackend
from modelport_torch.dtype import itemsize
from modelport_torch.support import text_config

if TYPE_CHECKING:
    import torch

__all__ = ["CpuBackend"]


class CpuBackend(TorchBackend):
    """One device: all cores that this process may use, with the memory that it may take."""

    name: ClassVar[str] = "cpu"
    rank: ClassVar[int] = 100
    prefill_tokens: ClassVar[int] = 512
    cache_share: ClassVar[float] = 0.25

    def __init__(self, host: Host | None = None) -> None:
        self._host = host or Host()

    def probe(self) -> Probe:
        """Reads the system's own files; neither torch nor a driver is involved, so it takes milliseconds."""
        host = self._host
        flags = host.flags()
        total, free = host.memory()
        interesting = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile", "bf16", "asimd", "sve")
        device = Device(
            backend=self.name,
            name=host.model_name(),
            memory_total_bytes=total,
            memory_free_bytes=free,
            dtypes=("float32", "bfloat16") if host.has_fast_bfloat16(flags) else ("float32",),
            properties={
                "cores": host.cores(),
                "architecture": host.architecture(),
                "instructions": " ".join(flag for flag in interesting if flag in flags),
            },
        )
        return Probe(devices=(device,), versions=host.versions("torch", "transformers"))

    def memory_bytes(self, program: Program, card: ModelCard, dtype: str) -> int:
        """As every torch backend's, and a tied output layer once more: packed, it no longer shares the embedding's memory."""
        text = text_config(card.config)
        tied = text.get("tie_word_embeddings") or card.config.get("tie_word_embeddings")
        twice = int(text.get("vocab_size") or 0) * int(text.get("hidden_size") or 0) * itemsize(dtype) if tied else 0
        return super().memory_bytes(program, card, dtype) + twice

    def refine(self, model: Any, context: LoadContext) -> str | None:
        """Packs linear layers for oneDNN, unless `backends.cpu.packed` is false."""
        if not context.options.get("packed", True):
            return None
        from modelport_backend_cpu.packed import pack

        return pack(model)

    def torch_device(self, device: Device) -> torch.device:
        import torch

        return torch.device("cpu")

    def free_bytes(self, device: Device) -> int:
        return self._host.memory()[1]
