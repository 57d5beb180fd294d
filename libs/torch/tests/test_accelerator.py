"""What a worker asks torch of its device, with torch answering for a machine that this is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modelport.contract import ConfigurationError, Device, LoadContext, ModelCard, Probe, Program
from modelport_torch.accelerator import GpuBackend

GIB = 1 << 30
UUIDS = ("5b3c1c5e-0a3b", "8e1f60aa-44ab", "c0ffee00-1234")


class Gpus(GpuBackend):
    name = "gpus"
    rank = 10
    visible_variable = "GPUS_VISIBLE"

    def probe(self) -> Probe:
        return Probe(devices=tuple(device(index) for index in range(3)))

    def handle(self, device: Device) -> str:
        return str(device.properties["uuid"])


def device(index: int) -> Device:
    return Device(
        backend="gpus",
        index=index,
        name=f"GPU number {index}",
        memory_total_bytes=80 * GIB,
        memory_free_bytes=79 * GIB,
        properties={"uuid": f"GPU-{UUIDS[index]}"},
    )


def segment(where: int, pool: int, gib: int) -> dict[str, Any]:
    """As torch's allocator describes one that has a GiB in use."""
    return {"device": where, "segment_pool_id": (0, pool), "total_size": gib * GIB, "allocated_size": GIB}


def context(folder: Path, **options: Any) -> LoadContext:
    card = ModelCard(name="m", path=str(folder))
    return LoadContext(card=card, program=Program({}), checkpoints={"main": folder}, devices=(device(1),), options=options)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`sees(2, 0)`: torch sees these of the devices, in this order. The device that was made current is kept."""
    current: list[torch.device] = []

    def give(*places: int) -> list[torch.device]:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(places))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=UUIDS[places[index]]))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (30 * GIB, 80 * GIB))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 45 * GIB)
        monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: [segment(0, 0, 42), segment(0, 1, 3), segment(1, 1, 9)])
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 40 * GIB)
        monkeypatch.setattr(torch.cuda, "set_device", current.append)
        return current

    return give


def test_worker_sees_its_own_devices_by_their_identities() -> None:
    environment = Gpus().environment([device(2), device(0)], 4)
    assert environment["GPUS_VISIBLE"] == f"GPU-{UUIDS[2]},GPU-{UUIDS[0]}"
    assert environment["OMP_NUM_THREADS"] == "4"


def test_the_one_device_that_a_worker_sees_is_its_own(sees: Any) -> None:
    sees(1)
    assert Gpus().torch_device(device(1)) == torch.device("cuda", 0)


def test_among_several_a_device_is_found_by_its_identity(sees: Any) -> None:
    sees(2, 0, 1)
    assert [Gpus().torch_device(device(index)).index for index in range(3)] == [1, 2, 0]


def test_device_that_torch_does_not_see_is_said(sees: Any) -> None:
    sees()
    with pytest.raises(ConfigurationError, match=r"sees 0 devices, and gpus:1 \(GPU number 1\) is none of them"):
        Gpus().torch_device(device(1))


def test_free_memory_is_the_drivers_and_what_neither_torch_nor_a_graph_uses_of_its_own(sees: Any) -> None:
    sees(0)
    assert Gpus().free_bytes(device(0)) == (30 + 45 - 40 - 2) * GIB


@pytest.mark.parametrize("tf32", [False, True])
def test_float32_is_float32_unless_allowed_otherwise(sees: Any, tmp_path: Path, tf32: bool) -> None:
    current = sees(1)
    given = context(tmp_path, tf32=True) if tf32 else context(tmp_path)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        Gpus().prepare(given)
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
        assert torch.backends.cudnn.allow_tf32 == tf32
        assert current == [torch.device("cuda", 0)]
        report = Gpus().report(given)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
    assert report == {
        "hardware": "GPU number 1",
        "device_memory": "30.0 of 80.0 GiB free when loaded",
        "device_bytes": str(45 * GIB),
        "graph_bytes": str(3 * GIB),
        "tf32": str(tf32).lower(),
    }
