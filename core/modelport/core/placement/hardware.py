"""The hardware there is: every enabled backend is asked in a child process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from modelport.contract.backend import Backend
from modelport.contract.device import Device, Probe
from modelport.contract.errors import Unavailable
from modelport.core.config.settings import Settings
from modelport.core.placement.decide import budgets

__all__ = ["Hardware", "Installed"]

_log = structlog.get_logger("modelport.placement")
_MOST_BYTES = 16_000_000


class Installed(Protocol):
    """What is needed of the plugin registry."""

    @property
    def backends(self) -> Mapping[str, Backend]: ...
    @property
    def modules(self) -> Mapping[tuple[str, str], str]: ...


class Hardware:
    """What every enabled backend found, once `probe` has been awaited.

    Args:
        registry: Brings the backends.
        settings: For memory budgets.
        timeout_s: Longest time that one probe may take; a driver that hangs is not waited for.

    Attributes:
        probes: By backend; a backend without devices has a reason.
    """

    def __init__(self, registry: Installed, settings: Settings, timeout_s: float = 60.0) -> None:
        self._registry = registry
        self._settings = settings
        self._timeout_s = timeout_s
        self._task: asyncio.Task[None] | None = None
        self.probes: dict[str, Probe] = {}

    @property
    def is_probed(self) -> bool:
        """Whether all backends have answered."""
        return self.probes.keys() >= self._registry.backends.keys()

    async def probe(self) -> None:
        """Returns when every backend has answered. All are asked at once; asking again costs nothing.

        Raises:
            Unavailable: a probe could not be started; the next call tries those that are missing again.
        """
        if self.is_probed:
            return
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._probe())
        await asyncio.shield(self._task)

    async def close(self) -> None:
        """Ends probes that still run."""
        task, self._task = self._task, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    @property
    def devices(self) -> list[Device]:
        """Every device that was found, in the order of the backends, whoever answered first."""
        return [device for name in self._registry.backends if name in self.probes for device in self.probes[name].devices]

    def budgets(self) -> dict[str, int]:
        """Most bytes of models per device id."""
        return budgets(self._settings.memory, self.devices)

    async def _probe(self) -> None:
        missing = [name for name in self._registry.backends if name not in self.probes]
        asking = (self._ask(name, self._registry.modules.get(("backends", name), "")) for name in missing)
        for failure in await asyncio.gather(*asking, return_exceptions=True):
            if isinstance(failure, OSError):
                raise Unavailable(f"The hardware cannot be probed: no process can be started ({failure}).") from failure
            if failure is not None:
                raise failure

    async def _ask(self, name: str, module: str) -> None:
        probe = await _probe_child(name, module, self._timeout_s)
        self.probes[name] = probe
        found = [device.id for device in probe.devices]
        _log.info("probed", backend=name, devices=found, **({"reason": probe.reason} if not found else {}))


async def _probe_child(name: str, module: str, timeout_s: float) -> Probe:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "modelport.core.placement.probe",
        name,
        module,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=_MOST_BYTES,
    )
    try:
        out, err = await asyncio.wait_for(child.communicate(), timeout_s)
    except TimeoutError:
        return Probe(reason=f"its probe did not answer within {timeout_s:g} s; its driver may hang")
    finally:
        await _end(child)
    if child.returncode:
        return Probe(reason=f"its probe {_how(child.returncode)}{_last_line(err)}")
    try:
        return msgspec.json.decode(out, type=Probe)
    except msgspec.DecodeError as error:
        return Probe(reason=f"its probe gave no answer that makes sense: {error}{_last_line(err)}")


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
        await child.wait()


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _last_line(output: bytes) -> str:
    lines: Sequence[str] = output.decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1].strip()[:300]}" if lines else ""
