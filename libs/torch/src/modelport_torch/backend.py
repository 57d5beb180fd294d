"""The base of every torch backend. Torch-free until `load`: the server judges with it."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from modelport.contract.backend import LoadContext, Progress, Verdict
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.errors import ConfigurationError, OutOfMemory
from modelport.contract.program import Generate, Module, Program
from modelport.contract.runner import Runner
from modelport_torch.choice import compile_option
from modelport_torch.dtype import itemsize, resolve
from modelport_torch.quantised import Format, why_not_quantised
from modelport_torch.support import (
    STATIC_RULES,
    cache_bytes_per_token,
    engine_params,
    static_params,
    text_config,
    why_static,
)

if TYPE_CHECKING:
    import torch

__all__ = ["TorchBackend"]

_MIB = 1 << 20
_BATCH_TOKENS = 2048
_CACHE_TOKENS = 8192


class TorchBackend(ABC):
    """Loads programs with torch and transformers. A subclass names the device and says how much memory is free on it.

    Attributes:
        prefill_tokens: Most prompt tokens that a generation step takes in, a quarter of it while others run.
        cache_share: How much of the free memory a key/value cache may take if nobody says.
        runtime_bytes: What a worker takes of the device's memory before it has loaded anything.
        quantised: Formats of quantised weights that transformers loads here.
    """

    name: ClassVar[str]
    rank: ClassVar[int]
    imports_torch: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("modelport_torch.runner", "transformers.models.auto.modeling_auto")
    prefill_tokens: ClassVar[int] = 2048
    cache_share: ClassVar[float] = 0.5
    runtime_bytes: ClassVar[int] = 350 * _MIB
    quantised: ClassVar[Mapping[str, Format]] = {}

    @abstractmethod
    def probe(self) -> Probe:
        """Finds devices."""

    @abstractmethod
    def torch_device(self, device: Device) -> torch.device:
        """torch's name of a device. Called in the worker."""

    @abstractmethod
    def free_bytes(self, device: Device) -> int:
        """Memory that is free on a device now. Called in the worker."""

    def prepare(self, context: LoadContext) -> None:
        """Called in the worker before anything is loaded.

        Sets torch's threads deliberately: its own guess is every core of the machine, for every worker.
        """
        import torch

        torch.set_num_threads(max(context.threads, 1))
        # May be set once per process, before the first parallel work; a second deployment of a group finds it done.
        if torch.get_num_interop_threads() != 1:
            with contextlib.suppress(RuntimeError):
                torch.set_num_interop_threads(1)

    def refine(self, model: Any, context: LoadContext) -> str | None:
        """Called in the worker with each loaded model: may exchange modules for faster ones of the same meaning, in place.

        Says what it did, for the placement record, or None if nothing. The runner compares answers before and after, and
        loads the model again without it if they differ.
        """
        return None

    def report(self, context: LoadContext) -> dict[str, str]:
        """Called in the worker once all is loaded: what else the placement record should say."""
        return {}

    def lacks(self, dtype: str, device: Device) -> str | None:
        """Why a type that was asked for by name cannot be computed in at all, as a sentence, or None if it can."""
        return None

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        """Environment variables for the worker. Idle OpenMP threads sleep: spinning ones slow everybody else's.

        What torch compiles is kept in the user's cache: torch's own choice is a folder that anybody may have made before.
        """
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "modelport" / "inductor"
        return {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
            "TORCHINDUCTOR_COMPILE_THREADS": str(threads),
            "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR") or str(cache),
        }

    def verdict(self, program: Program, card: ModelCard, devices: Sequence[Device], dtype: str = "auto") -> Verdict:
        """Judges from the card alone."""
        if len(devices) != 1:
            return Verdict(answer="no", reason=f"{self.name} runs a model on one device, and {len(devices)} were asked for.")
        device = devices[0]
        asked, dtype = dtype, resolve(dtype, card.dtype, device.dtypes)
        if reason := self.lacks(dtype, device) or self._refusal(program, card, device):
            return Verdict(answer="no", reason=reason, dtype=dtype)
        memory = self.memory_bytes(program, card, dtype)
        if memory > device.memory_total_bytes:
            return Verdict(
                answer="no",
                reason=f"it needs about {memory / 2**30:.1f} GiB in {dtype}, and {device.name} has "
                f"{device.memory_total_bytes / 2**30:.1f} GiB in all.",
                memory_bytes=memory,
                dtype=dtype,
            )
        generates = [entry for entry in program.entries.values() if isinstance(entry, Generate)]
        static = next((why for entry in generates if (why := why_static(entry, card.config))), None)
        params = engine_params(has_tokenizer="tokenizer.json" in card.files)
        if static is not None:
            params = frozenset.intersection(*(static_params(entry.rules) for entry in generates))
        how = "" if static is None else f", in static batches: {static.removesuffix('.')}"
        is_widened = asked in ("auto", "fast") and dtype != card.dtype
        packed = f", its weights as they are quantised ({card.quantization})" if card.quantization else ""
        widened = f", widened from {card.dtype}, which {device.name} does not compute in" if is_widened else ""
        return Verdict(
            answer="yes",
            reason=f"transformers runs it on {device.name} in {dtype}{widened}{packed}{how}.",
            memory_bytes=memory,
            params=params if generates else frozenset(),
            dtype=dtype,
        )

    def memory_bytes(self, program: Program, card: ModelCard, dtype: str) -> int:
        """What a worker would take: the runtime itself, weights in `dtype`, one batch's activations, and caches."""
        own = card.parameters * itemsize(card.dtype) or card.weight_bytes
        # Quantised weights lie in memory as in the files; all others as the type that is computed in.
        own = card.weight_bytes if card.quantization else own * itemsize(dtype) // itemsize(card.dtype)
        heads = {getattr(entry, "head", None) or getattr(entry, "build", "") for entry in program.entries.values()}
        weights = max(len(heads), 1) * own
        width = text_config(card.config).get("hidden_size")
        activations = _BATCH_TOKENS * (width if isinstance(width, int) else 1024) * 16 * itemsize(dtype)
        cache = 0
        if any(isinstance(entry, Generate) for entry in program.entries.values()):
            cache = cache_bytes_per_token(card.config, dtype) * max(card.limit or 0, _CACHE_TOKENS)
        return self.runtime_bytes + weights + activations + cache

    def load(self, context: LoadContext, progress: Progress) -> Runner:
        """Loads weights and builds forwards and engines.

        Raises:
            ConfigurationError: the checkpoint or the options cannot work.
            OutOfMemory: it does not fit.
        """
        if reason := self._refusal(context.program, context.card, context.devices[0]):
            raise ConfigurationError(reason)
        compile_option(context.options, self.name)  # what is wrong there is said before anything is read
        self.prepare(context)
        from modelport_torch.memory import as_out_of_memory, is_out_of_memory
        from modelport_torch.runner import TorchRunner

        device = context.devices[0]
        try:
            return TorchRunner(
                context,
                self.torch_device(device),
                progress,
                lambda: int(self.free_bytes(device) * self.cache_share),
                self.prefill_tokens,
                lambda model: self.refine(model, context),
                lambda: self.report(context),
            )
        except Exception as error:
            if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
                raise
            raise as_out_of_memory(error, f"the model and what generation needs on {device.name}") from None

    def _refusal(self, program: Program, card: ModelCard, device: Device) -> str | None:
        """Why it cannot run at all, as a sentence, or None."""
        needs_card = not all(isinstance(entry, Module) for entry in program.entries.values())
        if card.quantization and needs_card:
            capability = str(device.properties.get("capability", "0.0")).partition(".")
            reason = why_not_quantised(card, self.name, self.quantised, (int(capability[0]), int(capability[2])))
            if reason:
                return reason
        for name, entry in program.entries.items():
            if not isinstance(entry, Generate):
                continue
            unknown = [rule for rule in entry.rules if entry.mode != "own" or rule not in STATIC_RULES]
            if unknown:
                rules = ", ".join(unknown)
                return f"entry {name!r} needs rules over logits ({rules}) that {self.name}'s engine does not have yet."
        return None
