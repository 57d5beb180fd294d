"""What server and worker say to each other. Each message is the head of one frame; arrays lie in the frame's other parts.

The order of a worker's life: a spare is told to `Prepare`; both sides say `Hello`; the server sends `Load`; the worker answers
with `Loading` and at last `Loaded` or `LoadFailed`; then `Asked` and `Cancel` go one way, `Parts` and `Heartbeat` the other,
until `Leave`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from modelport import __version__
from modelport.contract import CONTRACT_VERSION, Task, wire
from modelport.contract.errors import ConfigurationError, InvalidRequest, ModelFailed, WireError
from modelport.contract.executor import (
    Call,
    DeltaPart,
    FailedPart,
    Part,
    ReplicaReady,
    ReplicaSpec,
    ReplicaStats,
    ResultPart,
    StartedPart,
)
from modelport.contract.reply import Timings, Usage
from modelport.core.worker.frames import FRAME_VERSION, Buffer

__all__ = [
    "Asked",
    "Cancel",
    "Heartbeat",
    "Hello",
    "Leave",
    "Load",
    "LoadFailed",
    "Loaded",
    "Loading",
    "Message",
    "Parts",
    "Prepare",
    "ask",
    "check_hello",
    "decode",
    "decode_call",
    "decode_parts",
    "encode",
    "encode_parts",
    "hello",
]

Tasks: TypeAlias = Mapping[str, Task[Any, Any, Any]]
_NIL = b"\xc0"
TaskOf: TypeAlias = Callable[[int], Task[Any, Any, Any] | None]


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first message of both sides: versions, and those of plugins where they may differ."""

    frame: int
    contract: str
    modelport: str
    plugins: dict[str, str] = {}


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """Everything that is to be loaded."""

    spec: ReplicaSpec


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag="prepare"):
    """Modules to import ahead of a `Load` that may come, or never."""

    modules: list[str]


class Loading(msgspec.Struct, frozen=True, array_like=True, tag="loading"):
    """The load goes on."""

    what: str
    fraction: float


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag="loaded"):
    """The replica takes calls."""

    ready: ReplicaReady


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag="load_failed"):
    """The replica will never take calls; the worker leaves."""

    error: WireError


class Asked(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """A call; `request` is the task's Struct as `contract.wire` wrote it."""

    id: int
    task: str
    request: msgspec.Raw
    stream: bool = False
    deadline_s: float | None = None
    priority: int = 0
    request_id: str = ""
    size: int = 0


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Calls that nobody waits for any more."""

    ids: list[int]


class Leave(msgspec.Struct, frozen=True, array_like=True, tag="leave"):
    """Cancel what is open, close everything, and exit."""


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, tag="heartbeat"):
    """The worker's loop lives; `stats.progress` says whether its device does."""

    stats: ReplicaStats


class WireDelta(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """A delta; its arrays start at part `at` of the frame."""

    id: int
    body: msgspec.Raw
    at: int


class WireResult(msgspec.Struct, frozen=True, array_like=True, tag="r"):
    """A result, or the end of a stream if the body is nil."""

    id: int
    body: msgspec.Raw
    at: int
    usage: Usage
    timings: Timings


class WireFailure(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A failure."""

    id: int
    error: WireError


class Parts(msgspec.Struct, frozen=True, array_like=True, tag="parts"):
    """Everything that happened since the last such message: calls that reached the device, then parts in order."""

    started: list[int]
    parts: list[WireDelta | WireResult | WireFailure]


Message: TypeAlias = Hello | Prepare | Load | Loading | Loaded | LoadFailed | Asked | Cancel | Leave | Heartbeat | Parts


def _encode_other(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"cannot send a {type(value).__name__} to a worker")


def _decode_other(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise NotImplementedError(f"cannot receive a {kind.__name__}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_other)
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message, dec_hook=_decode_other)


def encode(message: Message) -> bytes:
    """The head of a frame."""
    return _ENCODER.encode(message)


def decode(head: Buffer) -> Message:
    """The reverse of `encode`.

    Raises:
        msgspec.MsgspecError: if it is no message.
    """
    return _DECODER.decode(head)


def hello(plugins: Mapping[str, str] | None = None) -> Hello:
    """What this side says first."""
    return Hello(FRAME_VERSION, CONTRACT_VERSION, __version__, dict(plugins or {}))


def check_hello(mine: Hello, theirs: Hello, where: str) -> None:
    """Compares both sides' versions; `where` names the other side.

    Raises:
        ConfigurationError: naming what differs, with both numbers.
    """
    pairs = [("frame format", str(mine.frame), str(theirs.frame)), ("contract", mine.contract, theirs.contract)]
    pairs.append(("modelport", mine.modelport, theirs.modelport))
    pairs += [
        (f"plugin {name}", version, theirs.plugins[name]) for name, version in mine.plugins.items() if name in theirs.plugins
    ]
    for what, here, there in pairs:
        if here != there:
            raise ConfigurationError(
                f"Server and worker do not fit: {what} is {here} here and {there} in {where}. Install the same versions in both."
            )


def ask(call: Call) -> list[Buffer]:
    """The frame of a call.

    Raises:
        InvalidRequest: if the request holds what cannot be sent.
    """
    try:
        head, buffers = wire.encode(call.request)
    except (TypeError, NotImplementedError, OverflowError, ValueError) as error:  # a lone surrogate is a ValueError
        raise InvalidRequest(f"the request cannot be sent to the model: {error}") from error
    asked = Asked(call.id, call.task, msgspec.Raw(head), call.stream, call.deadline_s, call.priority, call.request_id, call.size)
    return [encode(asked), *buffers]


def decode_call(asked: Asked, buffers: Sequence[Buffer], tasks: Tasks) -> Call:
    """The call that `ask` wrote.

    Raises:
        InvalidRequest: if no such task is served, or the request is not its Struct.
    """
    task = tasks.get(asked.task)
    if task is None:
        raise InvalidRequest(f"this model does not serve the task {asked.task!r}; it serves {', '.join(tasks)}")
    try:
        request = wire.decode(memoryview(asked.request), buffers, task.request)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRequest(f"the request is not one of task {asked.task!r}: {error}") from error
    return Call(
        id=asked.id,
        task=asked.task,
        request=request,
        stream=asked.stream,
        deadline_s=asked.deadline_s,
        priority=asked.priority,
        request_id=asked.request_id,
        size=asked.size,
    )


def encode_parts(parts: Iterable[tuple[int, Part]]) -> list[Buffer]:
    """One frame of all `parts`. What cannot be encoded fails its call and no other."""
    started: list[int] = []
    wired: list[WireDelta | WireResult | WireFailure] = []
    buffers: list[Buffer] = []
    for call, part in parts:
        at = len(buffers)
        try:
            match part:
                case StartedPart():
                    started.append(call)
                case DeltaPart(delta):
                    head, more = wire.encode(delta)
                    wired.append(WireDelta(call, msgspec.Raw(head), at))
                    buffers += more
                case ResultPart(None, usage, timings):
                    wired.append(WireResult(call, msgspec.Raw(_NIL), at, usage, timings))
                case ResultPart(result, usage, timings):
                    head, more = wire.encode(result)
                    wired.append(WireResult(call, msgspec.Raw(head), at, usage, timings))
                    buffers += more
                case FailedPart(error):
                    wired.append(WireFailure(call, error))
        except (TypeError, NotImplementedError, OverflowError, ValueError) as error:
            failed = ModelFailed(f"The model's answer cannot be sent: {error}.")
            wired.append(WireFailure(call, failed.to_wire()))
    return [encode(Parts(started, wired)), *buffers]


def decode_parts(message: Parts, buffers: Sequence[Buffer], task_of: TaskOf) -> list[tuple[int, Part]]:
    """What `encode_parts` wrote, in order, `StartedPart`s first. Parts of calls for which `task_of` is None are dropped."""
    decoded: list[tuple[int, Part]] = [(call, StartedPart()) for call in message.started if task_of(call) is not None]
    for wired in message.parts:
        task = task_of(wired.id)
        if task is None:
            continue
        part: Part
        try:
            match wired:
                case WireDelta(_, body, at):
                    if task.delta is None:
                        raise ValueError("the task does not stream")
                    part = DeltaPart(wire.decode(memoryview(body), buffers[at:], task.delta))
                case WireResult(_, body, _, usage, timings) if memoryview(body) == _NIL:
                    part = ResultPart(None, usage, timings)
                case WireResult(_, body, at, usage, timings):
                    part = ResultPart(wire.decode(memoryview(body), buffers[at:], task.result), usage, timings)
                case WireFailure(_, wire_error):
                    part = FailedPart(wire_error)
        except (msgspec.MsgspecError, ValueError) as error:
            message_text = f"The model's answer is not what the task {task.name!r} declares: {error}."
            part = FailedPart(ModelFailed(message_text).to_wire())
        decoded.append((wired.id, part))
    return decoded
