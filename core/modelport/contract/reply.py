"""What comes back beside a result: usage and timings."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

__all__ = ["Options", "Reply", "Timings", "Usage"]

Result = TypeVar("Result")


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Tokens of one request, as the worker counted them. `cached_tokens` are prompt tokens that a cache answered."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Timings(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Seconds: waiting for admission and a device, preparing on the CPU, on the device, and the worker's whole time.

    `run_s` is the sum over the request's device calls; `worker_s` is from the arrival in the worker to the result's leaving.
    """

    queue_s: float = 0.0
    prepare_s: float = 0.0
    run_s: float = 0.0
    worker_s: float = 0.0
    first_delta_s: float = 0.0


class Reply(msgspec.Struct, Generic[Result], frozen=True, kw_only=True):
    """A finished request: the task's result, and what it took. `model` is the model's own name, aliases resolved."""

    result: Result
    model: str
    usage: Usage = Usage()
    timings: Timings = Timings()


class Options(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What every task's request may carry beside its Struct.

    Args:
        deadline_s: Seconds from now in which an answer is useful.
        priority: −10 to 10; higher is sooner.
        hardware: A backend or device (`cpu`, `cuda:1`) to run on, where the configuration allows that.
        request_id: The caller's id; one is made if empty.
    """

    deadline_s: float | None = None
    priority: int = 0
    hardware: str = ""
    request_id: str = ""
