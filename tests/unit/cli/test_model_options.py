"""Options about a model become keys of the configuration."""

from __future__ import annotations

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.cli.model_options import model_flags


def test_options_have_the_names_of_keys() -> None:
    given = {key: value for key, value in model_flags(alias=("x",), dtype="float32", preload=True).items() if value}

    assert given == {"aliases": ["x"], "dtype": "float32", "preload": True}


@pytest.mark.parametrize(
    ("backend", "device", "expected"),
    [
        (None, "cuda:1", "cuda:1"),
        ("cuda", "1", "cuda:1"),
        ("cuda", "cuda:1", "cuda:1"),
        ("cpu", None, "cpu"),
        (None, "cpu", "cpu"),
    ],
)
def test_backend_and_device_make_one_key(backend: str | None, device: str | None, expected: str) -> None:
    assert model_flags(backend=backend, device=device)["backend"] == expected


@pytest.mark.parametrize(("backend", "device"), [(None, "1"), ("cpu", "cuda:0")])
def test_a_device_that_no_backend_explains_is_refused(backend: str | None, device: str) -> None:
    with pytest.raises(ConfigurationError, match="--device"):
        model_flags(backend=backend, device=device)
