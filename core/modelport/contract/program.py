"""What is to be computed, as data.

A `Program` is what a skill asks of any backend: named entries over one set of weights, each with typed inputs and a
list of exactly the outputs that are wanted. It is plain data, so it can be hashed for caches, sent to a worker and
judged by `Backend.verdict` without torch::

    Program({"main": Forward(
        head="feature-extraction",
        inputs=(ArraySpec("input_ids"), ArraySpec("attention_mask")),
        outputs=(Output("embedding", source="last_hidden_state", chain=(Pool("mean"), Normalize())),),
    )})
"""

from __future__ import annotations

import hashlib
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "Argmax",
    "ArraySpec",
    "At",
    "Cast",
    "Dense",
    "Entry",
    "Forward",
    "Generate",
    "LogSoftmax",
    "Module",
    "Normalize",
    "Output",
    "Pool",
    "Program",
    "Sigmoid",
    "Softmax",
    "Splade",
    "Step",
    "TopK",
    "step_name",
]


class ArraySpec(msgspec.Struct, frozen=True):
    """One input array.

    Args:
        name: The argument of the model's method. `name.0`, `name.1`, … are gathered into one argument, a list.
        dtype: NumPy's name of the type.
        axes: A name or a fixed size for each axis *after* stacking; the first is always `batch`. Axes with one name
            are padded to one length.
        pad: The value that fills padding. `None` asks for the tokenizer's pad id, which the session supplies in
            `SessionContext.pads`; a session that pads itself may ignore it.
        optional: Whether a batch may be without it. A backend whose graphs have fixed inputs refuses such an entry.
    """

    name: str
    dtype: str = "int64"
    axes: tuple[str | int, ...] = ("batch", "sequence")
    pad: int | float | None = 0
    optional: bool = False


class _Step(msgspec.Struct, frozen=True):
    """A reduction that a backend may put into its graph; `contract.reduce` is the reference of each."""


class Pool(_Step, frozen=True, tag="pool"):
    """(batch, sequence, width) → (batch, width) over the positions where the input `mask` is not 0.

    `cls` takes the first such position, `last` the last, whichever side was padded; `mean` divides by at least 1.
    """

    mode: Literal["mean", "cls", "last", "max"]
    mask: str = "attention_mask"


class Dense(_Step, frozen=True, tag="dense"):
    """A linear layer read from a file of the checkpoint: (…, in) → (…, out).

    `file` is a safetensors file relative to the checkpoint, holding `linear.weight` (out, in) and, optionally,
    `linear.bias` (out). The activation follows.
    """

    file: str
    activation: Literal["identity", "tanh", "relu", "gelu"] = "identity"


class Normalize(_Step, frozen=True, tag="normalize"):
    """Divides by the L2 norm over the last axis, at least 1e-12."""


class Softmax(_Step, frozen=True, tag="softmax"):
    """Softmax over the last axis."""


class Sigmoid(_Step, frozen=True, tag="sigmoid"):
    """The logistic function of each element."""


class LogSoftmax(_Step, frozen=True, tag="log_softmax"):
    """The logarithm of softmax over the last axis."""


class Argmax(_Step, frozen=True, tag="argmax"):
    """The index of the largest element of the last axis, int64; the last axis goes."""


class TopK(_Step, frozen=True, tag="topk"):
    """The `k` largest of the last axis, descending. Ends a chain; the indices appear as `<name>_indices`."""

    k: int


class At(_Step, frozen=True, tag="at"):
    """(batch, sequence, …) → (batch, k, …): the rows that the integer input `index` (batch, k) names."""

    index: str


class Splade(_Step, frozen=True, tag="splade"):
    """(batch, sequence, vocabulary) → (batch, vocabulary): max or sum over unmasked positions of log(1 + relu(x)).

    `log1p_relu` takes the logarithm twice: log(1 + log(1 + relu(x))).
    """

    mask: str = "attention_mask"
    mode: Literal["max", "sum"] = "max"
    activation: Literal["relu", "log1p_relu"] = "relu"


class Cast(_Step, frozen=True, tag="cast"):
    """A change of type; `dtype` is NumPy's name."""

    dtype: str


Step: TypeAlias = Pool | Dense | Normalize | Softmax | Sigmoid | LogSoftmax | Argmax | TopK | At | Splade | Cast


class Output(msgspec.Struct, frozen=True):
    """One wanted output.

    Args:
        name: The key of the result.
        source: The attribute of the model's output; `name` when empty.
        chain: Reductions, applied left to right.
        keep: Leave it on the device and return a handle that another entry takes without a host copy.
    """

    name: str
    source: str = ""
    chain: tuple[Step, ...] = ()
    keep: bool = False


class Forward(msgspec.Struct, frozen=True, tag="forward", kw_only=True):
    """One call of a model that a transformers auto class loads.

    `head` is the auto class in the field's task names (`feature-extraction` is `AutoModel`, `sequence-classification`
    is `AutoModelForSequenceClassification`, …). `call` may name another method (`get_image_features`).
    `checkpoint` is a key of `Program.checkpoints`, or `main`.
    """

    head: str
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[Output, ...]
    call: str = "forward"
    checkpoint: str = "main"


class Module(msgspec.Struct, frozen=True, tag="module", kw_only=True):
    """A `torch.nn.Module` that no auto class knows.

    `build` is `package.module:function`; it is called with the checkpoint's folder and `kwargs`, in the worker.
    `examples` maps each input to a shape that a converting backend may trace with. `traceable` false says that none may: the
    module loops, or draws, as its inputs say, and a trace would keep what it did once.
    """

    build: str
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[Output, ...]
    kwargs: dict[str, str | int | float | bool] = {}
    examples: dict[str, tuple[int, ...]] = {}
    traceable: bool = True
    checkpoint: str = "main"


class Generate(msgspec.Struct, frozen=True, tag="generate", kw_only=True):
    """An autoregressive loop.

    `mode="stepped"` asks for an engine whose requests join and leave at every step; `"own"` runs the model's own
    `generate` in static batches. `rules` names transformations of logits that the engine must apply
    (`suppress`, `begin_suppress`, `forced`, `whisper_timestamps`): declared data, never callables.
    """

    head: str = "causal-lm"
    mode: Literal["stepped", "own"] = "stepped"
    inputs: tuple[ArraySpec, ...] = (ArraySpec("input_ids"),)
    rules: tuple[str, ...] = ()
    checkpoint: str = "main"


Entry: TypeAlias = Forward | Module | Generate


class Program(msgspec.Struct, frozen=True):
    """Named entries over one set of weights.

    `checkpoints` names further checkpoints that entries refer to (a vocoder beside a text-to-speech model): a Hub id or a
    local folder; the core resolves each to a folder before a worker starts.
    """

    entries: dict[str, Entry]
    checkpoints: dict[str, str] = {}

    @property
    def digest(self) -> str:
        """A stable name of this program: equal programs have equal digests, in every process and version."""
        return hashlib.sha256(msgspec.msgpack.encode(self, order="deterministic")).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def forward(self, name: str) -> Forward | Module:
        """The entry `name`, which must be a `Forward` or a `Module`; KeyError or TypeError otherwise."""
        entry = self.entries[name]
        if isinstance(entry, Generate):
            raise TypeError(f"entry {name!r} generates; use run.generate")
        return entry


def step_name(step: Step) -> str:
    """The name of a reduction as it appears in `Limits.reductions`: `pool`, `normalize`, …"""
    return str(type(step).__struct_config__.tag)
