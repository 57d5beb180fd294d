from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelport.contract import Device, LoadContext, Program
from modelport.contract.runner import Runner
from modelport.testing.backend import card_of
from modelport_backend_openvino.backend import OpenVinoBackend
from modelport_backend_openvino.convert import convert

Load = Callable[..., Runner]


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of conversions that all tests of this folder share."""
    return tmp_path_factory.mktemp("converted")


@pytest.fixture(scope="session")
def device() -> Device:
    return OpenVinoBackend().probe().devices[0]


@pytest.fixture
def context(device: Device, converted: Path) -> Callable[..., LoadContext]:
    def make(folder: Path, program: Program, **rest: Any) -> LoadContext:
        options = {"cache": str(converted)} | rest.pop("options", {})
        config = json.loads((folder / "config.json").read_text())
        length = config.get("max_position_embeddings", 256)
        card = msgspec.structs.replace(card_of(folder), context_length=length, dtype=config["dtype"])
        given: dict[str, Any] = {"dtype": "float32", "checkpoints": {"main": folder}, "devices": (device,), **rest}
        return LoadContext(card=card, program=program, options=options, **given)

    return make


@pytest.fixture
def load(context: Callable[..., LoadContext]) -> Iterator[Load]:
    """Loads in float32 unless told otherwise; conversions run in this process, where torch is imported once."""
    runners: list[Runner] = []

    def make(folder: Path, program: Program, **rest: Any) -> Runner:
        runners.append(OpenVinoBackend(convert=convert).load(context(folder, program, **rest), lambda what, fraction: None))
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()
