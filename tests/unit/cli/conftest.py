"""Commands as users type them, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def modelport(tmp_path: Path):
    """Runs `modelport …` in an empty folder, with its own state."""

    def run(*arguments: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("MODELPORT_")}
        env |= {"MODELPORT_STATE_DIR": str(tmp_path / "state"), "MODELPORT_CACHE_DIR": str(tmp_path / "cache"), **variables}
        command = [sys.executable, "-m", "modelport", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == status, f"status {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run
