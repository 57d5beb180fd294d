"""What every test of the core starts from."""

from __future__ import annotations

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_go_where_the_test_looks() -> None:
    """Engines and commands set up logging for their process, which a test of another one must not find."""
    structlog.reset_defaults()
