"""Steps of generation as graphs: what the host did once to launch a step's kernels is recorded, and replayed from then on.

A graph has fixed shapes and fixed addresses. So a step is rounded up to a few shapes, what changes from step to step is copied to
where the graph reads it, and all graphs are dropped as soon as the cache moves. What cannot be recorded runs as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch

from modelport_torch.memory import trim

__all__ = ["CudaRecorder", "Graph", "Recorder", "StepGraphs", "recorder_of", "step_shape"]

_log = logging.getLogger(__name__)
_LEAST_WIDTH = 64
_MOST = 64

Run = Callable[[torch.Tensor, int], torch.Tensor]


class Graph(Protocol):
    """A recorded computation. `output` is where each replay leaves its result."""

    output: torch.Tensor

    def replay(self) -> None: ...


class Recorder(Protocol):
    """Makes graphs that share their memory: a replay may overwrite whatever another has left but its `output`."""

    def record(self, run: Callable[[], torch.Tensor]) -> Graph: ...


class CudaGraph:
    """A graph of a CUDA or HIP device."""

    def __init__(self, graph: torch.cuda.CUDAGraph, output: torch.Tensor) -> None:
        self._graph = graph
        self.output = output

    def replay(self) -> None:
        """Queues all that was recorded on the current stream."""
        self._graph.replay()


class CudaRecorder:
    """Records on a stream of its own, into one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(self, run: Callable[[], torch.Tensor]) -> CudaGraph:
        """Runs `run` once as it is, for what libraries set up at their first call, and once to be recorded.

        The first time torch refuses whatever waits for the device: that cannot be recorded, and to fail while recording would
        leave less in order.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        strictness = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(self._stream):
                run()
        finally:
            torch.cuda.set_sync_debug_mode(strictness)
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        # The outer stream: torch does not go back to it if recording fails. Other threads may ask the device for memory meanwhile
        # (page-locked buffers), which is no fault of what is recorded.
        with (
            torch.cuda.stream(current),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            output = run()
        return CudaGraph(graph, output)


def recorder_of(device: torch.device) -> Callable[[], Recorder] | None:
    """What makes recorders for a device; None if it has no graphs."""
    return (lambda: CudaRecorder(device)) if device.type == "cuda" else None


def step_shape(rows: int, width: int, cache: tuple[int, int]) -> tuple[int, int]:
    """The (rows, columns to look at) that a step of `rows` over `width` columns is rounded up to, within those of the cache.

    Rows are doubled; columns are doubled with a stop half way, so that at most a third is looked at for nothing.

    >>> step_shape(3, 65, (8, 1024)), step_shape(3, 97, (3, 1024)), step_shape(1, 10, (1, 64))
    ((4, 96), (3, 128), (1, 64))
    """
    count = 1 << (rows - 1).bit_length()
    full = max(_LEAST_WIDTH, 1 << (width - 1).bit_length())
    part = full * 3 // 4
    return min(count, cache[0]), min(part if width <= part and full > _LEAST_WIDTH else full, cache[1])


class StepGraphs:
    """The graphs of one cache, made when a shape first comes, which takes about two steps.

    Args:
        device: Where.
        make: What makes a recorder.
        run: A step: (ids, lengths, positions, places) as one tensor (4, rows), and how many columns to look at, to logits.
            It must do the same for every content of the tensor, and never ask what that is.

    Attributes:
        why_not: Why no graphs are made any more; empty while they are.
    """

    def __init__(self, device: torch.device, make: Callable[[], Recorder], run: Run) -> None:
        self._device = device
        self._make = make
        self._run = run
        self._recorder: Recorder | None = None
        self._generation = -1
        self._made: dict[tuple[int, int], tuple[torch.Tensor, Graph]] = {}
        self.why_not = ""

    def __len__(self) -> int:
        return len(self._made)

    def step(self, inputs: list[list[int]], width: int, generation: int) -> torch.Tensor | None:
        """Logits of a step, in memory that the next step overwrites; None if it has to run as it is.

        Args:
            inputs: ids, lengths, positions and places, each as long as a shape has rows.
            generation: The cache's: graphs of another one read where nothing is any more.
        """
        if self.why_not:
            return None
        host, key = torch.tensor(inputs), (len(inputs[0]), width)
        if generation != self._generation or (key not in self._made and len(self._made) >= _MOST):
            self.clear()
            self._generation = generation
        if key not in self._made and not self._record(key, host):
            return None
        static, graph = self._made[key]
        static.copy_(host)
        graph.replay()
        return graph.output

    def clear(self) -> None:
        """Drops all graphs, and the memory that they share."""
        self._made = {}
        self._recorder = None

    def _record(self, key: tuple[int, int], host: torch.Tensor) -> bool:
        static = host.to(self._device, copy=True)
        try:
            self._recorder = self._recorder or self._make()
            self._made[key] = static, self._recorder.record(lambda: self._run(static, key[1]))
        except Exception as error:
            self.why_not = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            return True
        # Here what failed is out of reach, and with it the memory that it held.
        self.clear()
        trim(self._device)
        _log.warning("A step of generation cannot be recorded, and all run as they are from now on: %s", self.why_not)
        return False
