"""Linear layers whose weights lie in oneDNN's own order.

torch's `linear` reads weights in plain order and, in float32, through another library; packed once when the model is loaded, the
same product takes half to four fifths of the time on processors with wide vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["PackedLinear", "pack"]

_ROWS = 32  # the number of rows that the order of weights is chosen for; others work as well
_DTYPES = (torch.float32, torch.bfloat16)
_FACTS = ("__get__", "size", "dim", "numel", "is_floating_point")


class _Shown(torch.Tensor):
    """The type and the shape of a weight. torch ignores a tensor without values where it is added in place to another one, so
    whatever would compute with this raises."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Attributes and sizes, and nothing else."""
        if getattr(func, "__name__", "") in _FACTS:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        raise TypeError(f"{getattr(func, '__name__', func)} of a weight whose values are packed")


class PackedLinear(torch.nn.Module):
    """A drop-in for `torch.nn.Linear` in inference. Its `weight` has a type and a shape, and no values."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.weight = torch.empty_like(linear.weight, device="meta").as_subclass(_Shown)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x · weightᵀ + bias."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


def pack(model: torch.nn.Module) -> str | None:
    """Packs every plain linear layer of `model` in place; says what was done, or None if there is nothing this torch can pack.

    A weight that is tied to an embedding is there twice afterwards. The caller compares the model's answers with earlier ones.
    """
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")):
        return None
    count = 0
    with torch.inference_mode(False), torch.no_grad():
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is torch.nn.Linear and child.weight.dtype in _DTYPES and _is_plain(child):
                    setattr(parent, name, PackedLinear(child))
                    count += 1
    return f"oneDNN, packed ({count} layers)" if count else None


def _is_plain(linear: torch.nn.Linear) -> bool:
    """Whether nothing hangs on the layer that a replacement would lose."""
    return not (linear._forward_hooks or linear._forward_pre_hooks or linear.weight.numel() == 0)
