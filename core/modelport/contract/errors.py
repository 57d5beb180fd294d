"""Every error that crosses a boundary of modelport.

The tree, with the kind that travels on the wire::

    ModelportError                  internal          a defect or a failed model: nothing the caller can mend
    ├── InvalidRequest              invalid           the request is wrong; `param` names the field
    │   ├── UnsupportedParameter    unsupported       understood, but nobody here honours it
    │   ├── InputTooLong            too_long          over the model's context length
    │   ├── WrongTask               wrong_task        the model does not do that task
    │   └── PayloadTooLarge         too_large         more bytes than the configuration allows
    ├── Unauthenticated             unauthenticated   no key, or one that is unknown, revoked or expired
    ├── Forbidden                   forbidden         the key may not do this
    ├── NotFound                    not_found         no such model, task or route
    ├── Conflict                    conflict          the state forbids it (unloading a pinned model)
    ├── Overloaded                  overloaded        the queue is full: come back in `retry_after_s`
    ├── Unavailable                 unavailable       loading, draining, or its load failed
    ├── DeadlineExceeded            deadline          the request's time ran out
    ├── Cancelled                   cancelled         the caller left or asked to stop
    ├── ModelFailed                 model_failed      the model's process died or its code raised
    │   └── DeviceFailed            device_failed     the device is lost
    │       ├── OutOfMemory         out_of_memory     it did not fit the device's memory; less at once may
    │       └── NotNumbers          not_numbers       the device computed NaN
    └── ConfigurationError          configuration     the server cannot start or load with what it was given

There is no HTTP here: each API plugin writes an error in its dialect, and the core maps kinds to status codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

__all__ = [
    "Cancelled",
    "ConfigurationError",
    "Conflict",
    "DeadlineExceeded",
    "DeviceFailed",
    "Forbidden",
    "InputTooLong",
    "InvalidRequest",
    "ModelFailed",
    "ModelportError",
    "NotFound",
    "NotNumbers",
    "OutOfMemory",
    "Overloaded",
    "PayloadTooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnsupportedParameter",
    "WireError",
    "WrongTask",
    "error_from_wire",
]


class WireError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as data: what a worker sends and a client parses."""

    kind: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class ModelportError(Exception):
    """The base of all errors.

    Args:
        message: What happened, why, and what to do, in sentences for the caller. Never a stack trace or a prompt.
        param: The request field at fault, dotted (`messages.0.role`), if there is one.
        retry_after_s: Seconds after which a retry may succeed, if that is known.
    """

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def to_wire(self) -> WireError:
        """The error as data."""
        return WireError(self.kind, self.message, self.param, self.retry_after_s)

    def __reduce__(self) -> tuple[Any, ...]:
        return error_from_wire, (self.to_wire(),)


class InvalidRequest(ModelportError):
    """The request is wrong; `param` names the field."""

    kind = "invalid"


class UnsupportedParameter(InvalidRequest):
    """A parameter that is understood but that nothing here honours. `param` is always set."""

    kind = "unsupported"


class InputTooLong(InvalidRequest):
    """The input is longer than the model's context."""

    kind = "too_long"


class WrongTask(InvalidRequest):
    """The model does not do that task."""

    kind = "wrong_task"


class PayloadTooLarge(InvalidRequest):
    """More bytes than the configuration allows."""

    kind = "too_large"


class Unauthenticated(ModelportError):
    """No key, or one that is unknown, revoked or expired."""

    kind = "unauthenticated"


class Forbidden(ModelportError):
    """A good key that may not do this."""

    kind = "forbidden"


class NotFound(ModelportError):
    """No such model, task or route."""

    kind = "not_found"


class Conflict(ModelportError):
    """The present state forbids it."""

    kind = "conflict"


class Overloaded(ModelportError):
    """The model's queue is full. `retry_after_s` is measured from its service rate."""

    kind = "overloaded"


class Unavailable(ModelportError):
    """The model is loading, draining, or its load failed; the message says which and why."""

    kind = "unavailable"


class DeadlineExceeded(ModelportError):
    """The request's own time limit ran out."""

    kind = "deadline"


class Cancelled(ModelportError):
    """The caller left, or asked to stop."""

    kind = "cancelled"


class ModelFailed(ModelportError):
    """The model's process died, or its code raised."""

    kind = "model_failed"


class DeviceFailed(ModelFailed):
    """The device is at fault: elsewhere the same request may well succeed. Itself it says that the device is lost."""

    kind = "device_failed"


class OutOfMemory(DeviceFailed, MemoryError):
    """A load, a batch or a step did not fit into a device's memory. What was aboard is lost; the backend itself goes on."""

    kind = "out_of_memory"


class NotNumbers(DeviceFailed):
    """The device computed NaN: it is broken, or its type is too narrow for the model or for this input."""

    kind = "not_numbers"


class ConfigurationError(ModelportError):
    """The server cannot start, or a model cannot load, with what it was given."""

    kind = "configuration"


_BY_KIND: dict[str, type[ModelportError]] = {
    cls.kind: cls
    for cls in (
        ModelportError,
        InvalidRequest,
        UnsupportedParameter,
        InputTooLong,
        WrongTask,
        PayloadTooLarge,
        Unauthenticated,
        Forbidden,
        NotFound,
        Conflict,
        Overloaded,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        ModelFailed,
        DeviceFailed,
        OutOfMemory,
        NotNumbers,
        ConfigurationError,
    )
}


def error_from_wire(wire: WireError) -> ModelportError:
    """The exception that `wire` describes; an unknown kind becomes a plain `ModelportError`."""
    cls = _BY_KIND.get(wire.kind, ModelportError)
    return cls(wire.message, param=wire.param, retry_after_s=wire.retry_after_s)
