from __future__ import annotations

import numpy as np
import pytest

from modelport.core.worker.cache import OutputCache, size_of
from modelport.testing.fakes import NumpyArray


def test_an_output_is_found_under_its_entry_and_key() -> None:
    cache = OutputCache(1000)
    cache.put("encode", "a", {"features": np.arange(3)})
    found = cache.get("encode", "a")
    assert found is not None
    assert found["features"].tolist() == [0, 1, 2]  # type: ignore[union-attr]
    assert cache.get("encode", "b") is None
    assert cache.get("decode", "a") is None


def test_the_least_recently_used_goes_when_bytes_run_out() -> None:
    cache = OutputCache(1000)
    for key in "abc":
        cache.put("encode", key, {"features": np.zeros(50, np.float64)})
        cache.get("encode", "a")
    assert cache.used_bytes == 800
    assert [key for key in "abc" if cache.get("encode", key)] == ["a", "c"]


def test_an_output_larger_than_the_cache_is_not_kept() -> None:
    cache = OutputCache(100)
    cache.put("encode", "a", {"features": np.zeros(50)})
    assert (cache.get("encode", "a"), cache.used_bytes) == (None, 0)


def test_a_row_does_not_keep_its_batch_alive_and_cannot_be_changed() -> None:
    cache, batch = OutputCache(1000), np.zeros((100, 4))
    cache.put("encode", "a", {"features": batch[3]})
    kept = cache.get("encode", "a")
    assert kept is not None
    array = kept["features"]
    assert isinstance(array, np.ndarray)
    assert array.base is None
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_handle_counts_the_bytes_on_its_device() -> None:
    assert size_of(NumpyArray(np.zeros((2, 3), np.float32))) == 24
