"""The conformance suite on QNN's emulation of the NPU, with nothing falling back to the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.testing.backend import BackendSuite
from modelport.testing.checkpoints import tiny_bert
from modelport_backend_qnn.backend import QnnBackend


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    TestQnn.options = {"cache": str(tmp_path_factory.mktemp("converted")), "shapes": [[4, 8]]}


class TestQnn(BackendSuite):
    backend = QnnBackend()
    tolerance = 0.03  # it computes in float16

    def forward_checkpoint(self, folder: Path) -> Path:
        return tiny_bert(folder)

    def generate_checkpoint(self, folder: Path) -> Path | None:
        return None
