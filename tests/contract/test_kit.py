"""The suite over an installed backend, as its owner runs it: `pytest --pyargs modelport.testing --backend NAME`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelport_backend_mps.backend import MpsBackend

NO_DEVICE = MpsBackend().probe().reason


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.skipif(not NO_DEVICE, reason="this machine has the device")
def test_backend_without_a_device_passes_its_probe_and_says_why_the_rest_is_skipped(tmp_path: Path) -> None:
    done = run(tmp_path, "--pyargs", "modelport.testing", "--backend", "mps")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert f"NO DEVICE, so every test that needs one was skipped: {NO_DEVICE}" in done.stdout


def test_backend_with_a_device_is_tested_on_it(tmp_path: Path) -> None:
    done = run(tmp_path, "--pyargs", "modelport.testing", "--backend", "cpu", "-k", "probe or reduction_equals")
    assert done.returncode == 0, done.stdout
    assert "ran on cpu:0" in done.stdout
    assert "17 passed" in done.stdout


def test_backend_that_is_not_installed_is_refused_with_those_that_are(tmp_path: Path) -> None:
    done = run(tmp_path, "--pyargs", "modelport.testing", "--backend", "abacus")
    assert done.returncode == 4
    assert "no backend 'abacus' is installed; there are: cpu" in done.stderr


def test_option_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser):\n    parser.addoption('--backend')\n")
    (tmp_path / "test_it.py").write_text("def test_it(request):\n    assert request.config.getoption('backend') == 'theirs'\n")
    done = run(tmp_path, "--backend", "theirs")
    assert done.returncode == 0, done.stdout + done.stderr
