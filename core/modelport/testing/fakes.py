"""Two whole backends in NumPy, as unlike as backends can be, and a plugin module that registers them.

`NumpyBackend` computes in the calling thread, takes any shape, and does every reduction and nearly every sampling parameter.
`BucketBackend` computes on threads of its own, two batches at a time, takes two batch sizes and three lengths, does no
reduction and few parameters. A skill that works on both does not know where it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from modelport import hookimpl
from modelport.contract import reduce
from modelport.contract.array import Array
from modelport.contract.backend import Backend, LoadContext, Progress, Verdict
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.generate import Engine, Sampling
from modelport.contract.program import Forward, Generate, Program
from modelport.contract.runner import Limits, Runner
from modelport.testing.fake_engine import TinyEngine
from modelport.testing.fake_network import TinyNetwork

__all__ = ["BucketBackend", "NumpyArray", "NumpyBackend"]

MODELPORT_CONTRACT = "1.0"

_ALL_REDUCTIONS = frozenset(
    {"pool", "dense", "normalize", "softmax", "sigmoid", "log_softmax", "argmax", "topk", "at", "splade", "cast"}
)
_MOST_PARAMS = frozenset(Sampling.__struct_fields__) - {"num_beams"} | {"n", "logprobs", "prompt_logprobs"}
_FEW_PARAMS = frozenset({"max_new_tokens", "do_sample", "temperature", "seed", "n", "eos_token_id", "min_new_tokens"})


class NumpyArray:
    """A `DeviceArray` whose device is the host; it counts the copies that are made of it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.host_copies = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> str:
        return str(self._array.dtype)

    def numpy(self) -> np.ndarray:
        """A copy, as from a device."""
        self.host_copies += 1
        return self._array.copy()

    def __getitem__(self, index: Any) -> NumpyArray:
        return NumpyArray(self._array[index])

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._array.__dlpack__(**kwargs)

    def on_device(self) -> np.ndarray:
        """The memory itself: what its own backend takes without a copy."""
        return self._array


class NumpyRunner:
    """A program over `TinyNetwork`s. See `contract.runner.Runner`."""

    def __init__(self, context: LoadContext, limits: Limits) -> None:
        self._program, self._limits = context.program, limits
        names = {entry.checkpoint for entry in context.program.entries.values()}
        self._networks = {name: TinyNetwork(context.checkpoints[name]) for name in names}
        self._dense = {name: reduce.dense_reader(context.checkpoints[name]) for name in names}
        self._engines: dict[str, TinyEngine] = {}
        self._threads = ThreadPoolExecutor(limits.in_flight) if limits.in_flight > 1 else None

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def facts(self) -> Mapping[str, str]:
        return {"dtype": "float32", "runtime": "numpy"}

    def submit(self, entry: str, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Runs one batch, here or on a thread."""
        if self._threads is not None:
            return self._threads.submit(self._run, entry, batch)
        future: Future[dict[str, Array]] = Future()
        try:
            future.set_result(self._run(entry, batch))
        except Exception as error:
            future.set_exception(error)
        return future

    def engine(self, entry: str) -> Engine:
        """The engine of a `Generate` entry."""
        if entry not in self._engines:
            network = self._networks[self._program.entries[entry].checkpoint]
            self._engines[entry] = TinyEngine(network, self._limits.params, context=self._limits.max_length or 64)
        return self._engines[entry]

    def buffer(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        return np.empty(shape, dtype)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._networks.clear()
        self._engines.clear()

    def _run(self, entry_name: str, batch: Mapping[str, Array]) -> dict[str, Array]:
        entry = self._program.forward(entry_name)
        inputs = {
            name: array.on_device() if isinstance(array, NumpyArray) else np.asarray(array) for name, array in batch.items()
        }
        if self._limits.shapes is not None:
            _check_shapes(entry, inputs, self._limits.shapes)
        method = entry.call if isinstance(entry, Forward) else entry.build.rpartition(":")[2]
        raw = self._networks[entry.checkpoint].call(method, inputs)
        outputs: dict[str, Array] = {}
        for wanted in entry.outputs:
            value = raw[wanted.source or wanted.name]
            for step in reduce.split_chain(wanted.chain, self._limits.reductions)[0]:
                value, *more = reduce.apply(step, value, inputs, self._dense[entry.checkpoint])
                if more:
                    outputs[f"{wanted.name}_indices"] = more[0]
            outputs[wanted.name] = NumpyArray(value) if wanted.keep else value
        return outputs


class NumpyBackend:
    """Runs anything on the calling thread."""

    name: ClassVar[str] = "fake-numpy"
    rank: ClassVar[int] = 100
    imports_torch: ClassVar[bool] = False
    preload: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[Limits] = Limits(max_length=64, reductions=_ALL_REDUCTIONS, params=_MOST_PARAMS)

    def probe(self) -> Probe:
        """One device: the host."""
        device = Device(backend=self.name, name="NumPy", memory_total_bytes=1 << 30, memory_free_bytes=1 << 30)
        return Probe(devices=(device,), versions={"numpy": np.__version__})

    def verdict(self, program: Program, card: ModelCard, devices: Sequence[Device], dtype: str = "auto") -> Verdict:
        """Runs what a `TinyNetwork` has a method for."""
        for name, entry in program.entries.items():
            if isinstance(entry, Generate) and entry.mode == "own":
                return Verdict(answer="no", reason=f"Entry {name!r} asks for the model's own generate, which NumPy has not.")
            if isinstance(entry, Forward) and not hasattr(TinyNetwork, entry.call):
                return Verdict(answer="no", reason=f"Entry {name!r} calls {entry.call!r}, which a tiny network has not.")
        params = self.limits.params
        return Verdict(answer="yes", reason="NumPy runs it.", memory_bytes=1 << 20, params=params, dtype="float32")

    def environment(self, devices: Sequence[Device], threads: int) -> dict[str, str]:
        return {"OPENBLAS_NUM_THREADS": str(threads)}

    def load(self, context: LoadContext, progress: Progress) -> Runner:
        progress("reading weights", 0.5)
        return NumpyRunner(context, self.limits)


class BucketBackend(NumpyBackend):
    """Runs fixed shapes only, two batches at a time."""

    name: ClassVar[str] = "fake-bucket"
    limits: ClassVar[Limits] = Limits(
        max_items=4,
        max_tokens=256,
        in_flight=2,
        shapes=tuple((items, length) for items in (1, 4) for length in (4, 16, 64)),
        params=_FEW_PARAMS,
        max_length=64,
    )


@hookimpl
def register_backends() -> list[Backend]:
    """Both."""
    return [NumpyBackend(), BucketBackend()]


def _check_shapes(entry: Any, inputs: Mapping[str, np.ndarray], shapes: Sequence[tuple[int, int]]) -> None:
    """What a compiled graph would refuse."""
    for spec in entry.inputs:
        if spec.name not in inputs:
            continue
        sizes = dict(zip(spec.axes, inputs[spec.name].shape, strict=True))
        fits = [
            shape
            for shape in shapes
            if sizes.get("batch", shape[0]) == shape[0]
            and sizes.get("sequence", shape[1]) == shape[1]
            and sizes.get("packed", shape[0] * shape[1]) == shape[0] * shape[1]
        ]
        if not fits:
            raise ValueError(
                f"{spec.name} has the shape {inputs[spec.name].shape}, for which nothing was compiled: {list(shapes)}"
            )
