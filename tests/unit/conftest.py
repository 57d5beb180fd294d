"""What unit tests of several rooms need."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """The processes that this test has started and that are still there. What libraries keep for themselves from before, such as
    the tracker of multiprocessing, is not among them."""
    before = {child.pid for child in psutil.Process().children()}
    return lambda: {child.pid for child in psutil.Process().children()} - before
