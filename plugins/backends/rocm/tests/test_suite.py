from __future__ import annotations

from pathlib import Path

from modelport.testing.backend import BackendSuite
from modelport.testing.checkpoints import tiny_bert, tiny_llama
from modelport_backend_rocm.backend import RocmBackend


class TestRocm(BackendSuite):
    """Where there is no device, every test that needs one is skipped with the probe's reason."""

    backend = RocmBackend()

    def forward_checkpoint(self, folder: Path) -> Path:
        return tiny_bert(folder)

    def generate_checkpoint(self, folder: Path) -> Path:
        return tiny_llama(folder)
