"""A loaded program on one torch device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
import transformers

from modelport.contract.array import Array
from modelport.contract.backend import LoadContext, Progress
from modelport.contract.errors import ConfigurationError, OutOfMemory
from modelport.contract.program import Forward, Generate, Module
from modelport.contract.runner import Limits
from modelport_torch import dtype as dtypes
from modelport_torch.agreement import agree
from modelport_torch.attention import use_grouped
from modelport_torch.calibrate import Probe
from modelport_torch.choice import Choice, compile_option, plan
from modelport_torch.compiled import compile_forwards
from modelport_torch.engine.build import AnyEngine, build_engine
from modelport_torch.forward import ForwardEntry
from modelport_torch.load import checkpoint_dtype, load_model, load_module
from modelport_torch.memory import as_lost, as_out_of_memory, is_out_of_memory, trim
from modelport_torch.processor import linger
from modelport_torch.reduce import REDUCTIONS
from modelport_torch.support import why_static

__all__ = ["TorchRunner"]

_PREFIX_TOKENS = 8192


class TorchRunner:
    """A `Runner`: models, forward entries and engines of one program. It computes in the calling thread.

    Args:
        context: What to load, as the backend got it.
        device: Where to.
        progress: Told of the loading.
        cache_bytes: Says how much the key/value cache may take, if the context does not; asked once the weights are loaded.
        prefill_tokens: Most prompt tokens an engine takes in one step, a quarter of it while others run.
        refine: Puts faster modules into a loaded model, in place, and says what it did, or None if it did nothing.
        report: Says what else belongs into the facts; asked last.

    Raises:
        ConfigurationError, MemoryError: as `Backend.load`.
    """

    def __init__(
        self,
        context: LoadContext,
        device: torch.device,
        progress: Progress,
        cache_bytes: Callable[[], int],
        prefill_tokens: int,
        refine: Callable[[Any], str | None],
        report: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._context = context
        self._device = device
        self._progress = progress
        self._models: dict[tuple[str, str], Any] = {}
        self._forwards: dict[str, ForwardEntry] = {}
        self._engines: dict[str, AnyEngine] = {}
        self._facts = {"torch": str(torch.__version__), "transformers": transformers.__version__, "device": str(device)}
        runs = context.devices[0].dtypes
        own = {name: checkpoint_dtype(folder) for name, folder in context.checkpoints.items()} | {"main": context.card.dtype}
        self._dtypes = {name: dtypes.resolve(context.dtype, of, runs) for name, of in own.items()}
        self._load()
        if context.dtype == "fast" and not context.card.quantization:  # quantised weights have the type they have
            self._quicken(dtypes.fast(self._dtypes["main"], runs))
        self._refine(refine)
        wanted = compile_option(context.options, context.devices[0].backend)
        shapes = self._compile(wanted) if wanted != "off" and self._forwards else None
        generates = [name for name, entry in context.program.entries.items() if isinstance(entry, Generate)]
        max_length = self._longest()
        tokenizer = context.checkpoints["main"] / "tokenizer.json" if "tokenizer.json" in context.card.files else None
        if generates:
            budget = (context.cache_bytes if context.cache_bytes is not None else cache_bytes()) // len(generates)
        for name in generates:
            model = self._model_of(name)
            grouped = use_grouped(model)
            entry = context.program.entries[name]
            assert isinstance(entry, Generate)
            engine, decoding = build_engine(
                model,
                device,
                max_rows=context.max_items,
                max_length=max_length,
                cache_bytes=budget,
                prefill_tokens=int(context.options.get("prefill_tokens", prefill_tokens)),
                prefix_tokens=int(context.options.get("prefix_tokens", _PREFIX_TOKENS)),
                tokenizer=tokenizer,
                static=why_static(entry, context.card.config),
                entry=entry,
                compiled=wanted,
            )
            self._engines[name] = engine
            if wanted != "off":
                self._facts["decode"] = decoding
            self._facts["sampler"] = engine.how
            self._facts["prefix_tokens"] = str(engine.prefix_tokens)
            self._facts["attention"] = "sdpa, grouped" if grouped else str(model.config._attn_implementation)
            self._facts["cache_tokens"] = str(engine.load().cache_total)
        self._facts["dtype"] = self._dtypes["main"]
        self._facts["threads"] = str(torch.get_num_threads())
        if context.card.quantization:
            self._facts["quantization"] = context.card.quantization
        self._limits = Limits(
            max_items=context.max_items,
            shapes=shapes,
            reductions=REDUCTIONS,
            params=frozenset.intersection(*(engine.params for engine in self._engines.values())) if generates else frozenset(),
            max_length=min([engine.max_length for engine in self._engines.values()], default=max_length),
            linger=linger(context.threads) if device.type == "cpu" else 0.0,
        )
        self._facts |= report()
        progress("loaded", 1.0)

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def facts(self) -> Mapping[str, str]:
        return self._facts

    def submit(self, entry: str, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Runs one batch; the future is done on return."""
        future: Future[dict[str, Array]] = Future()
        try:
            future.set_result(self._forwards[entry](batch))
        except Exception as error:
            # Also what a bad batch raises inside the model: it belongs to these items, not to the worker.
            future.set_exception(as_out_of_memory(error, "a batch") if is_out_of_memory(error) else as_lost(error) or error)
        if isinstance(future.exception(), OutOfMemory):
            trim(self._device)  # here, where the failed batch is out of reach
        return future

    def engine(self, entry: str) -> AnyEngine:
        return self._engines[entry]

    def buffer(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Host memory; page-locked before a CUDA device, which then copies it while the host goes on."""
        if self._device.type == "cuda":
            pinned: np.ndarray = torch.empty(shape, dtype=dtypes.torch_dtype(dtype), pin_memory=True).numpy()
            return pinned
        return np.empty(shape, np.dtype(dtype))

    def close(self) -> None:
        self._models.clear()
        self._forwards.clear()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        trim(self._device)  # modules refer to themselves through hooks; their memory should be back before this returns

    # ----------------------------------------------------------------------------------------------------- loading

    def _load(self) -> None:
        self._models.clear()
        self._forwards.clear()
        entries = self._context.program.entries
        wanted = {self._key(name, entry): (name, entry) for name, entry in entries.items()}
        for done, (key, (name, entry)) in enumerate(wanted.items()):
            low, span = done / len(wanted), 1 / len(wanted)

            def scaled(what: str, fraction: float, low: float = low, span: float = span) -> None:
                self._progress(what, low + span * fraction)

            scaled(f"loading {name}", 0.0)
            folder = self._context.checkpoints[entry.checkpoint]
            if isinstance(entry, Module):
                explicit = self._dtypes[entry.checkpoint] if self._context.dtype not in ("auto", "fast") else None
                self._models[key] = load_module(entry, folder, explicit, self._device)
                continue
            self._models[key] = load_model(
                entry.head,
                folder,
                self._dtypes[entry.checkpoint],
                self._device,
                scaled,
                trust_remote_code=self._context.card.trust_remote_code,
                attention=self._context.options.get("attention"),
                unused=() if self._reads_pooler(key) else ("pooler",),
            )
        self._bind()

    def _bind(self) -> None:
        for name, entry in self._context.program.entries.items():
            if not isinstance(entry, Generate):
                folder = self._context.checkpoints[entry.checkpoint]
                self._forwards[name] = ForwardEntry(name, entry, self._model_of(name), folder, self._device)
            elif not callable(getattr(self._model_of(name), "get_output_embeddings", None)):
                raise ConfigurationError(
                    f"entry {name!r} generates with the head {entry.head!r}, which has no vocabulary to draw from."
                )

    def _quicken(self, candidate: str | None) -> None:
        """Goes over to `candidate` if that answers as the type in use does; else stays, and says why."""
        base = self._dtypes["main"]
        if candidate is None:
            self._facts["calibration"] = f"{base} is the fastest type here"
            return
        self._progress("calibrating", 0.9)
        before = self._probe().run()
        if before is None:
            self._facts["calibration"] = f"{base}: no input could be made up to compare {candidate} with"
            return
        for model in self._models.values():
            model.to(dtypes.torch_dtype(candidate))
        self._bind()
        passed, finding = agree(before, self._probe().run(before.texts))
        self._facts["calibration"] = f"{candidate} {'passed' if passed else 'failed'}: {finding}"
        if passed:
            self._dtypes = dict.fromkeys(self._dtypes, candidate)
        else:
            self._load()

    def _refine(self, refine: Callable[[Any], str | None]) -> None:
        """Lets the backend exchange modules, and takes the exchange back if the model then answers otherwise, or not at all."""
        try:
            before = self._probe().run(briefly=True)
        except ConfigurationError:
            raise  # the program asks for what the model does not have: better said now than at the first request
        except Exception as error:
            if is_out_of_memory(error):
                raise
            before = None  # the inputs that were made up do not suit this model, which says nothing of real ones
        done = None if before is None else [said for model in self._models.values() if (said := refine(model))]
        if before is None or not done:
            return
        try:
            self._bind()
            passed, finding = agree(before, self._probe().run(briefly=True))
        except Exception as error:
            passed, finding = False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self._facts["linear"] = done[0] if passed else f"torch ({done[0]} was tried: {finding})"
        if not passed:
            self._load()

    def _compile(self, wanted: Choice) -> tuple[tuple[int, int], ...] | None:
        """Compiles the forwards, if that works and pays; the shapes that batches must then have, or None for any."""
        linear = self._facts.get("linear", "torch")
        if not linear.startswith("torch"):
            why = f"its linear layers are {linear}, which torch does not compile; packed = false leaves them plain"
            if wanted == "on":
                raise ConfigurationError(f"the model cannot be compiled: {why}.", param="compile")
            self._facts["compile"] = f"not compiled: {why}"
            return None
        rows, longest = self._context.max_items, self._longest()
        planned = plan(tuple(self._context.program.entries.values()), self._device.type, rows, longest, Limits().max_tokens)
        outcome = compile_forwards(wanted, planned, self._forwards, self._device, (rows, longest), self._progress)
        self._facts["compile"] = outcome.fact
        trim(self._device)
        return outcome.shapes

    def _longest(self) -> int | None:
        """Most tokens of a sequence, as far as configuration and checkpoint say."""
        return min((n for n in (self._context.max_length, self._context.card.limit) if n is not None), default=None)

    def _probe(self) -> Probe:
        entries = self._context.program.entries
        return Probe(self._context.program, self._forwards, {name: self._model_of(name) for name in entries})

    def _key(self, name: str, entry: Forward | Generate | Module) -> tuple[str, str]:
        """Entries of one head over one checkpoint share a model."""
        return entry.checkpoint, f"{entry.build} {sorted(entry.kwargs.items())}" if isinstance(entry, Module) else entry.head

    def _model_of(self, name: str) -> Any:
        return self._models[self._key(name, self._context.program.entries[name])]

    def _reads_pooler(self, key: tuple[str, str]) -> bool:
        """Whether an output of this model comes from its pooler; if not, a checkpoint may lack it."""
        entries = self._context.program.entries.items()
        sharing = [entry for name, entry in entries if self._key(name, entry) == key and isinstance(entry, Forward)]
        if key[1] != "feature-extraction":
            return True
        return any("pooler" in (out.source or out.name) or entry.call != "forward" for entry in sharing for out in entry.outputs)
