"""Small objects that plugins hand to the core once and the core calls often."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from modelport.contract.backend import Verdict
from modelport.contract.device import Device
from modelport.contract.host import Principal
from modelport.contract.reply import Timings, Usage

__all__ = ["Authorizer", "Candidate", "Observer", "RequestRecord", "Resolver"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A place where a model could run. `latency_s` is the measured median of that model there, if it ever ran there."""

    backend: str
    devices: tuple[Device, ...]
    verdict: Verdict
    rank: int = 100
    latency_s: float | None = None

    @property
    def place(self) -> str:
        """Its devices, or its backend where it names none, as logs and reasons say it."""
        return "+".join(device.id for device in self.devices) or self.backend or "no backend"


class Authorizer(Protocol):
    """May refuse a request. `authorize` runs on the event loop, before admission."""

    name: str

    def authorize(self, principal: Principal, action: Literal["infer", "load", "unload"], model: str) -> None:
        """Returns to allow. Raises `Forbidden` (or anything: it denies) to refuse."""


class Resolver(Protocol):
    """Turns sources into folders. `resolve` runs on a thread and may take long."""

    name: str

    def resolve(self, source: str, revision: str | None) -> Path | None:
        """The local folder of `source`, or None if this is not its kind of source."""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A finished request, without its content. `status` is `ok` or the error's kind."""

    request_id: str
    principal: str
    model: str
    task: str
    backend: str
    status: str
    usage: Usage
    timings: Timings
    total_s: float
    extra: dict[str, Any] = {}


class Observer(Protocol):
    """Is told of finished requests."""

    name: str

    def observe(self, record: RequestRecord) -> None:
        """One finished request. Runs on the observers' thread."""
