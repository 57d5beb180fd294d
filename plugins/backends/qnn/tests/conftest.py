from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelport.contract import Device, LoadContext, Program
from modelport.testing.backend import card_of
from modelport_backend_qnn.backend import QnnBackend

# before the first probe, which the suite makes once
os.environ["QNN_HTP_EMULATION"] = "1"


@pytest.fixture(scope="session")
def device() -> Device:
    probe = QnnBackend().probe()
    if not probe.devices:
        pytest.skip(probe.reason)
    return probe.devices[0]


@pytest.fixture(scope="module")
def load(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Opens a program on the NPU; conversions happen in this process and are kept for the module."""
    from modelport_backend_qnn.convert import convert

    runners: list[Any] = []
    cache = tmp_path_factory.mktemp("converted")

    def make(folder: Path, program: Program, *, dtype: str = "auto", by: Any = convert, **options: Any) -> Any:
        context = LoadContext(
            card=card_of(folder),
            program=program,
            checkpoints={"main": folder},
            devices=(device,),
            dtype=dtype,
            options={"cache": str(cache), **options},
        )
        runners.append(QnnBackend(convert=by).load(context, lambda what, fraction: None))
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()
