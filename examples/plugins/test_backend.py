"""The suite of backends, over the smallest there is: put your own in its place, and run `pytest test_backend.py`."""

from __future__ import annotations

from pathlib import Path

from modelport.testing.backend import BackendSuite
from modelport.testing.fake_network import write_tiny_network
from modelport.testing.fakes import NumpyBackend


class TestNumpyBackend(BackendSuite):
    """A backend for real checkpoints uses `tiny_bert` and `tiny_llama` of `modelport.testing.checkpoints`."""

    backend = NumpyBackend()

    def forward_checkpoint(self, folder: Path) -> Path:
        return write_tiny_network(folder)

    def generate_checkpoint(self, folder: Path) -> Path:
        return write_tiny_network(folder)
