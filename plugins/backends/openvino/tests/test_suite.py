from __future__ import annotations

from pathlib import Path

import pytest

from modelport.testing.backend import BackendSuite
from modelport.testing.checkpoints import tiny_bert, tiny_llama
from modelport_backend_openvino.backend import OpenVinoBackend
from modelport_backend_openvino.convert import convert


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    TestOpenVino.options = {"cache": str(tmp_path_factory.mktemp("converted"))}


class TestOpenVino(BackendSuite):
    backend = OpenVinoBackend(convert=convert)  # in this process: torch is imported once for all tests

    def forward_checkpoint(self, folder: Path) -> Path:
        return tiny_bert(folder)

    def generate_checkpoint(self, folder: Path) -> Path | None:
        return tiny_llama(folder)
