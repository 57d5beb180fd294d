"""Probes in real children: one that answers, raises, prints, crashes, hangs, or is not there."""

from __future__ import annotations

import asyncio
import errno
import time

import pytest

from modelport.contract import Unavailable
from modelport.core.config.settings import Settings
from modelport.core.placement.hardware import Hardware
from modelport.core.plugins.registry import Registry

MODULE = """
import os, signal, sys, time
from modelport import hookimpl
from modelport.contract import Device, Probe
MODELPORT_CONTRACT = "1.0"

class Backend:
    name, rank, imports_torch, preload = "{name}", 1, False, ()
    def probe(self):
        {probe}
    def verdict(self, program, card, devices, dtype="auto"): ...
    def environment(self, devices, threads): return {{}}
    def load(self, context, progress): ...

@hookimpl
def register_backends():
    return [Backend()]
"""
DEVICE = 'Probe(devices=(Device(backend="{name}", name="x", memory_total_bytes=9, memory_free_bytes=5),))'
PROBES = {
    "good": f"return {DEVICE.format(name='good')}",
    "noisy": f"print('a driver speaks'); os.write(1, b'and again'); return {DEVICE.format(name='noisy')}",
    "raises": "raise OSError('libdriver.so is missing')",
    "crashes": "os.kill(os.getpid(), signal.SIGSEGV)",
    "leaves": "print('no licence', file=sys.stderr); os._exit(3)",
    "hangs": "time.sleep(600)",
    "odd": "return 7",
}


@pytest.fixture
def ask(tmp_path, monkeypatch):
    for name, probe in PROBES.items():
        (tmp_path / f"probe_{name}.py").write_text(MODULE.format(name=name, probe=probe))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    async def probed(*names: str, timeout_s: float = 60.0) -> Hardware:
        registry = Registry()
        registry.backends.update(dict.fromkeys(names))
        registry.modules.update({("backends", name): f"probe_{name}" for name in names})
        hardware = Hardware(registry, Settings(), timeout_s)
        await hardware.probe()
        return hardware

    return probed


async def test_each_backend_answers_for_itself_and_none_takes_another_along(ask):
    hardware = await ask("good", "noisy", "raises", "crashes", "leaves", "odd", "absent")
    probes = hardware.probes
    assert [device.id for device in hardware.devices] == ["good:0", "noisy:0"]
    assert hardware.budgets() == {"good:0": 4, "noisy:0": 4}
    assert probes["raises"].reason == "its probe raised OSError: libdriver.so is missing"
    assert "SIGSEGV" in probes["crashes"].reason
    assert probes["leaves"].reason == "its probe ended with exit status 3: no licence"
    assert "returned a int" in probes["odd"].reason
    assert "probe_absent" in probes["absent"].reason


async def test_a_probe_that_hangs_is_ended_and_named(ask):
    began = time.monotonic()
    hardware = await ask("hangs", timeout_s=2.0)
    assert hardware.probes["hangs"].reason == "its probe did not answer within 2 s; its driver may hang"
    assert time.monotonic() - began < 30


async def test_probing_twice_at_once_asks_once(ask):
    hardware = await ask("good")
    before = hardware.probes["good"]
    await asyncio.gather(hardware.probe(), hardware.probe())
    assert hardware.probes["good"] is before


async def test_a_probe_that_cannot_be_started_is_asked_again_and_the_others_are_not(ask, monkeypatch):
    hardware = await ask("good")
    before = hardware.probes["good"]
    hardware._registry.backends["noisy"] = None
    hardware._registry.modules["backends", "noisy"] = "probe_noisy"

    async def refused(*args, **kwargs):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(asyncio, "create_subprocess_exec", refused)
        with pytest.raises(Unavailable, match="Too many open files"):
            await hardware.probe()
    await hardware.probe()
    assert hardware.probes["noisy"].devices
    assert hardware.probes["good"] is before


async def test_closing_ends_probes_that_still_run(tmp_path, monkeypatch):
    (tmp_path / "probe_hangs.py").write_text(MODULE.format(name="hangs", probe=PROBES["hangs"]))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    registry = Registry(backends={"hangs": None}, modules={("backends", "hangs"): "probe_hangs"})
    hardware = Hardware(registry, Settings())
    probing = asyncio.ensure_future(hardware.probe())
    await asyncio.sleep(0)
    await hardware.close()
    with pytest.raises(asyncio.CancelledError):
        await probing
