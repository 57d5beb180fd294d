"""One converted entry, compiled, with as many inference requests as may be in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import openvino as ov

from modelport.contract.array import Array, to_numpy
from modelport.contract.program import Forward, Module
from modelport_convert.array import HostArray

__all__ = ["CompiledForward"]


class CompiledForward:
    """Runs batches. With several in flight they overlap; with one, which suits a device that is this very processor, the caller
    computes, and no other thread has to be woken before and after.

    Args:
        spec: The entry.
        compiled: OpenVINO's compiled model, its ports named as the entry's inputs and outputs.
        in_flight: How many requests may be open at once.

    Attributes:
        takes_one: Whether the model was converted for one item at a time.
    """

    def __init__(self, spec: Forward | Module, compiled: ov.CompiledModel, in_flight: int) -> None:
        self._kept = {name for output in spec.outputs if output.keep for name in (output.name, f"{output.name}_indices")}
        self._inputs = _names(compiled.inputs, {each.name for each in spec.inputs})
        self._outputs = _names(
            compiled.outputs, {name for output in spec.outputs for name in (output.name, f"{output.name}_indices")}
        )
        axes = {each.name: each.axes for each in spec.inputs}
        self.takes_one = any(
            "batch" in axes[name] and port.get_partial_shape()[axes[name].index("batch")].is_static
            for name, port in zip(self._inputs, compiled.inputs, strict=True)
        )
        self._types = {spec.name: np.dtype(spec.dtype) for spec in spec.inputs}
        self._requests = deque(compiled.create_infer_request() for _ in range(in_flight))
        self._overlaps = in_flight > 1

    def submit(self, batch: Mapping[str, Array]) -> Future[dict[str, Array]]:
        """Starts a batch; the future is settled on one of OpenVINO's threads."""
        future: Future[dict[str, Array]] = Future()
        request = self._requests[0]
        self._requests.rotate(-1)
        arrays = {}
        try:
            if self._overlaps:
                request.wait()  # its future is settled, and its callback may still be on its way out
            for name in self._inputs:
                arrays[name] = np.ascontiguousarray(to_numpy(batch[name]), self._types[name])
                request.set_tensor(name, ov.Tensor(arrays[name], shared_memory=True))
            if self._overlaps:
                request.set_callback(self._finished, (request, future, arrays))
                request.start_async()
            else:
                request.infer()
                self._finished((request, future, arrays))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Waits for what is in flight."""
        for request in self._requests:
            request.wait()
        self._requests.clear()

    def _finished(self, state: Any) -> None:
        request, future, _ = state
        try:
            # the request's own memory is written to by the batch after this one
            found = {name: np.array(request.get_output_tensor(at).data) for at, name in enumerate(self._outputs)}
            outputs = {name: HostArray(array) if name in self._kept else array for name, array in found.items()}
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(outputs)


def _names(ports: Sequence[Any], known: set[str]) -> list[str]:
    """The entry's names of the ports. Compiling may merge tensors, and their names with them."""
    found: list[str] = []
    for port in ports:
        found.append(min((port.get_names() & known).difference(found)))
    return found
