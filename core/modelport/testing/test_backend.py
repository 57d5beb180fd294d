"""The suite over the backend that `--backend` names, with tiny checkpoints that are made for it. See `pytest_plugin`."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelport.contract.program import Generate, Program
from modelport.testing.backend import BackendSuite, card_of
from modelport.testing.checkpoints import tiny_bert, tiny_llama
from modelport.testing.pytest_plugin import installed_backend

__all__ = ["TestBackend"]


class TestBackend(BackendSuite):
    """An encoder and, if the backend generates, a language model."""

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _chosen(cls, request: pytest.FixtureRequest) -> None:
        backend = installed_backend(request.config)
        if backend is None:
            pytest.skip("say which: pytest --pyargs modelport.testing --backend NAME")
        cls.backend = backend

    def forward_checkpoint(self, folder: Path) -> Path:
        """A small BERT."""
        return tiny_bert(folder)

    def generate_checkpoint(self, folder: Path) -> Path:
        """A small Llama; skipped with the backend's reason if it does not generate."""
        made = tiny_llama(folder)
        verdict = self.backend.verdict(Program({"main": Generate()}), card_of(made), self.devices())
        if not verdict.runs:
            pytest.skip(verdict.reason)
        return made
