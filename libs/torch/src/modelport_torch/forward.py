"""One entry of a program that is a single call: inputs as tensors, the model's method, and the wanted outputs, reduced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modelport.contract.array import Array
from modelport.contract.errors import ConfigurationError, InvalidRequest
from modelport.contract.program import Forward, Module, Output
from modelport_torch.array import TorchArray, to_host, to_tensor
from modelport_torch.reduce import DenseFiles, reduce

if TYPE_CHECKING:
    from modelport_torch.compiled import CompiledCall

__all__ = ["ForwardEntry"]


class ForwardEntry:
    """A `Forward` or a `Module` over loaded weights.

    Inputs that the spec names and the method does not take (`token_type_ids` for a model without them) are left out of the
    call, and stay available to reductions; a method with only `**kwargs` gets everything.

    Attributes:
        call: The model's method.
        compiled: What is called in its stead, if anything is.
    """

    def __init__(self, name: str, spec: Forward | Module, model: Any, folder: Path, device: torch.device) -> None:
        self.name = name
        self.spec = spec
        self._device = device
        self._dense = DenseFiles(folder, device)
        self._model = model
        self.call = self._method(model)
        self.compiled: CompiledCall | None = None
        self._takes = _named_parameters(self.call)
        self._extra: dict[str, Any] = {}
        if self._takes is not None and "use_cache" in self._takes:
            self._extra["use_cache"] = False
        if any(output.source.startswith("hidden_states") for output in spec.outputs):
            self._extra["output_hidden_states"] = True
        self._shows_attention = any("attentions" in output.source for output in spec.outputs)
        if self._shows_attention:
            self._extra["output_attentions"] = True
        self._rows = None if device.type == "cpu" else _embedding_rows(model)
        self._float = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    @torch.inference_mode()
    def __call__(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """All wanted outputs of one batch: NumPy arrays, or handles for outputs that are kept.

        Raises:
            KeyError: if a reduction names an input that the batch lacks.
            InvalidRequest: if there is a token that the model does not have.
        """
        self._check_ids(batch)
        tensors = {name: to_tensor(array, self._device) for name, array in batch.items()}
        kept = {name for output in self.spec.outputs if output.keep for name in (output.name, f"{output.name}_indices")}
        found = self.tensors(tensors)
        if self.compiled is not None and self.compiled.graphs:
            found |= {name: found[name].clone() for name in kept & found.keys()}  # the next replay overwrites the original
        return {name: TorchArray(value) if name in kept else to_host(value) for name, value in found.items()}

    @property
    def vocabulary(self) -> int | None:
        """How many tokens the model's configuration counts; None if it counts none."""
        found = getattr(getattr(self._model, "config", None), "vocab_size", None)
        return found if isinstance(found, int) else None

    @property
    def pad_token(self) -> int:
        """The token that fills padding where the model's configuration says; else 0."""
        return int(getattr(getattr(self._model, "config", None), "pad_token_id", None) or 0)

    def tensors(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """All wanted outputs as tensors, in the order of the spec: what an exporter traces."""
        with _eager(self._model) if self._shows_attention else nullcontext():
            result = (self.compiled or self.call)(**self._arguments(inputs), **self._extra)
        outputs: dict[str, torch.Tensor] = {}
        for output in self.spec.outputs:
            values = self._reduced(output, self._pick(result, output), inputs)
            outputs.update(zip((output.name, f"{output.name}_indices"), values, strict=False))
        return outputs

    def takes(self, name: str) -> bool:
        """Whether the method takes an input of that name; others are there for reductions only."""
        return self._takes is None or name.partition(".")[0] in self._takes

    def _arguments(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """What the method takes of `inputs`; `name.0`, `name.1`, … are one list, in the order in which they come."""
        arguments: dict[str, Any] = {}
        for name, value in inputs.items():
            argument, dot, _ = name.partition(".")
            if dot and self.takes(name):
                arguments.setdefault(argument, []).append(self._fit(value))
            elif self.takes(name):
                arguments[name] = self._fit(value)
        return arguments

    def _reduced(self, output: Output, value: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        more: tuple[torch.Tensor, ...] = ()
        for step in output.chain:
            value, *rest = reduce(step, value, inputs, self._dense)
            more = more or tuple(rest)
        return (value, *more)

    def _check_ids(self, batch: Mapping[str, Array]) -> None:
        """Off the host, a row that an embedding lacks does not fail the batch: it ends every later use of the device."""
        ids = batch.get("input_ids")
        if self._rows is None or not isinstance(ids, np.ndarray) or not ids.size or ids.dtype.kind not in "iu":
            return
        if int(ids.min()) < 0 or int(ids.max()) >= self._rows:
            raise InvalidRequest(f"the input has a token that is none of 0 to {self._rows - 1}, which the model knows.")

    def _fit(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self._float) if value.is_floating_point() and value.dtype != self._float else value

    def _method(self, model: Any) -> Callable[..., Any]:
        call = getattr(self.spec, "call", "forward")
        if call == "forward":
            method: Callable[..., Any] = model
            return method
        method = getattr(model, call, None)  # type: ignore[assignment]
        if not callable(method):
            raise ConfigurationError(
                f"entry {self.name!r} calls {call!r}, which {type(model).__name__} does not have; the skill's program is wrong."
            )
        return method

    def _pick(self, result: Any, output: Output) -> torch.Tensor:
        """The tensor that `output.source` names: an attribute, a key, or a dotted path through both and through indices."""
        source = output.source or output.name
        if isinstance(result, torch.Tensor):
            return result
        value = result
        for part in source.split("."):
            if isinstance(value, (tuple, list)) and not hasattr(value, part) and part.lstrip("-").isdigit():
                value = value[int(part)]
            elif isinstance(value, Mapping):
                value = value.get(part)
            else:
                value = getattr(value, part, None)
        if not isinstance(value, torch.Tensor):
            has = ", ".join(map(str, result.keys())) if hasattr(result, "keys") else type(result).__name__
            raise ConfigurationError(f"the model has no output {source!r}, which entry {self.name!r} wants; it has: {has}.")
        return value


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """For as long as it lasts, the model computes its attention in the one way that can be looked at."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _embedding_rows(model: Any) -> int | None:
    """How many tokens a model has vectors for; None if it takes no tokens."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None


def _named_parameters(call: Callable[..., Any]) -> frozenset[str] | None:
    """Names that `call` takes explicitly; None if it names none, and takes whatever comes."""
    target = call.forward if isinstance(call, torch.nn.Module) else call
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = frozenset(p.name for p in inspect.signature(target).parameters.values() if p.kind in kinds)
    return names or None
