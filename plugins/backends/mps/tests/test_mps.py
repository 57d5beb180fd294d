from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import modelport_backend_mps as plugin
from modelport.contract import ConfigurationError, Forward, Generate, LoadContext, ModelCard, Program
from modelport_backend_mps.backend import MpsBackend
from modelport_backend_mps.fallback import Fallbacks
from modelport_backend_mps.host import Host
from modelport_torch.installed import TorchBuild

GIB = 1 << 30


class RecordedHost(Host):
    """A Mac, by what its commands answer."""

    def __init__(self, system: str = "Darwin", machine: str = "arm64", macos: tuple[int, int] = (15, 3), **said: Any) -> None:
        self._system, self._machine, self._macos, self._said = system, machine, macos, said

    system = property(lambda self: self._system)  # type: ignore[assignment]
    machine = property(lambda self: self._machine)  # type: ignore[assignment]
    macos = property(lambda self: self._macos)  # type: ignore[assignment]

    def memory(self) -> tuple[int, int]:
        return self._said.get("total", 32 * GIB), self._said.get("available", 20 * GIB)

    def _sysctl(self, name: str) -> str:
        return str({"machdep.cpu.brand_string": "Apple M2 Max", "iogpu.wired_limit_mb": self._said.get("limit", "0")}[name])


def backend(**said: Any) -> MpsBackend:
    return MpsBackend(RecordedHost(**said), lambda: TorchBuild(version="2.13.0"))


def context(found: MpsBackend, folder: Path) -> LoadContext:
    return LoadContext(
        card=ModelCard(name="m", path=str(folder)),
        program=Program({"main": Forward(head="feature-extraction", inputs=(), outputs=())}),
        checkpoints={"main": folder},
        devices=found.probe().devices,
    )


def test_plugin_registers_one_backend_after_the_other_gpus() -> None:
    (found,) = plugin.register_backends()
    assert (found.name, found.rank) == ("mps", 30)
    assert plugin.MODELPORT_CONTRACT == "1.0"


def test_importing_and_probing_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, modelport_backend_mps as p; p.register_backends()[0].probe();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"system": "Linux", "machine": "x86_64"}, "this is Linux; MPS exists on Apple silicon only."),
        ({"machine": "x86_64"}, "this is macOS on x86_64; MPS exists on Apple silicon only."),
        ({"macos": (13, 6)}, "this is macOS 13.6, and torch's MPS needs macOS 14 or newer: update the system."),
    ],
)
def test_machine_without_it_says_why(said: dict[str, Any], reason: str) -> None:
    probe = backend(**said).probe()
    assert not probe.devices
    assert probe.reason == reason


def test_machine_without_torch_says_so() -> None:
    probe = MpsBackend(RecordedHost(), TorchBuild).probe()
    assert probe.reason == "Apple M2 Max is there, and torch is not installed: pip install torch."


def test_chip_is_one_device_with_a_part_of_the_systems_memory() -> None:
    probe = backend().probe()
    (device,) = probe.devices
    assert (device.id, device.name) == ("mps:0", "Apple M2 Max")
    assert device.memory_total_bytes == 32 * GIB * 2 // 3
    assert device.memory_free_bytes == 20 * GIB
    assert device.dtypes == ("float32", "bfloat16", "float16")
    assert device.properties["macos"] == probe.versions["macos"] == "15.3"


@pytest.mark.parametrize(
    ("said", "budget"),
    [
        ({"total": 16 * GIB, "available": 15 * GIB}, 16 * GIB * 2 // 3),
        ({"total": 64 * GIB, "available": 60 * GIB}, 48 * GIB),
        ({"total": 64 * GIB, "available": 60 * GIB, "limit": "57344"}, 56 * GIB),
        ({"total": 16 * GIB, "available": 15 * GIB, "limit": "999999"}, 16 * GIB),
    ],
)
def test_budget_is_the_systems_rule_or_the_limit_that_was_set(said: dict[str, Any], budget: int) -> None:
    assert backend(**said).probe().devices[0].memory_total_bytes == budget


def test_type_that_it_does_not_have_is_refused() -> None:
    found = backend()
    card = ModelCard(name="m", weight_bytes=GIB, config={"hidden_size": 64})
    verdict = found.verdict(Program({"main": Generate()}), card, found.probe().devices, "float64")
    assert verdict.answer == "no"
    assert "MPS has no float64" in verdict.reason
    assert found.verdict(Program({"main": Generate()}), card, found.probe().devices, "bfloat16").answer == "yes"


def test_quantised_checkpoint_is_refused() -> None:
    found = backend()
    verdict = found.verdict(Program({"main": Generate()}), ModelCard(name="m", quantization="awq"), found.probe().devices)
    assert "mps loads unquantised safetensors only" in verdict.reason


def test_operators_that_are_missing_fall_back_and_the_record_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = backend()
    shown: list[str] = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *rest: shown.append(str(message)))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 5 * GIB)
    given = context(found, tmp_path)
    assert found.environment(given.devices, 1)["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    found.prepare(given)
    assert found.report(given)["on_the_processor"] == "nothing so far"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for name in ("aten::linalg_qr.out", "aten::linalg_qr.out", "aten::_foobar"):
            warnings.warn(
                f"The operator '{name}' is not currently supported on the MPS backend and will fall back to run on the CPU. This "
                "may have performance implications. (Triggered internally at MPSFallback.mm:14.)",
                UserWarning,
                stacklevel=1,
            )
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert found.report(given) == {
        "hardware": "Apple M2 Max",
        "on_the_processor": "aten::linalg_qr.out, aten::_foobar",
        "device_bytes": str(5 * GIB),
    }
    assert len(shown) == 4, "what was said is still shown"


@pytest.mark.parametrize(("recommended", "held", "free"), [(21, 4, 17), (48, 4, 20), (4, 5, 0)])
def test_free_memory_is_what_metal_recommends_if_the_system_has_it(
    monkeypatch: pytest.MonkeyPatch, recommended: int, held: int, free: int
) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: recommended * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: held * GIB)
    found = backend()
    assert found.free_bytes(found.probe().devices[0]) == free * GIB


def test_listening_twice_hears_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(warnings, "showwarning", lambda *rest: shown.append(rest))
    fallbacks = Fallbacks()
    fallbacks.listen()
    fallbacks.listen()
    warnings.showwarning("anything", UserWarning, "here", 1)
    assert len(shown) == 1


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this torch can use the device")
def test_torch_that_cannot_use_the_device_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    found = backend()
    with pytest.raises(ConfigurationError, match="install torch for Apple silicon"):
        found.load(context(found, tmp_path), lambda what, fraction: None)
