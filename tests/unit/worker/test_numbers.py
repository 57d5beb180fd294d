"""What a device computed: NaN is a fault, and large or infinite numbers, which models mask with, are none."""

from __future__ import annotations

import numpy as np
import pytest

from modelport.core.worker.numbers import not_numbers

LOWEST = np.finfo(np.float32).min


@pytest.mark.parametrize("values", [[LOWEST] * 4, [np.inf, -np.inf], [1.0, 2.0], []])
def test_numbers(values: list[float]) -> None:
    assert not not_numbers({"logits": np.array(values, dtype=np.float32)})


@pytest.mark.parametrize("values", [[np.nan, 1.0], [np.nan, LOWEST, LOWEST], [np.inf, -np.inf, np.nan]])
def test_not_numbers(values: list[float]) -> None:
    assert not_numbers({"logits": np.array(values, dtype=np.float32)})
