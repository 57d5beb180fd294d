"""Options that say how to serve the model that a command names, and the keys of the configuration that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import rich_click as click

from modelport.contract.errors import ConfigurationError

__all__ = ["model_flags", "model_options"]

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--revision", metavar="REV", help="Branch, tag or commit on the Hub."),
    click.option("--dtype", metavar="TYPE", help="`auto` (the checkpoint's own), `fast`, or a type such as `bfloat16`."),
    click.option("--max-length", type=int, metavar="TOKENS", help="Most tokens of a sequence."),
    click.option("--backend", metavar="NAME", help="Run on this backend and no other."),
    click.option("--device", metavar="DEVICE", help="Run on this device (`cuda:1`), or its number beside `--backend`."),
    click.option("--trust-remote-code", is_flag=True, help="Run the checkpoint's own code; needs a revision."),
)


def model_options(command: F) -> F:
    """Adds the options; what they were given arrives under names that `model_flags` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def model_flags(
    *,
    alias: Sequence[str] = (),
    revision: str | None = None,
    dtype: str | None = None,
    max_length: int | None = None,
    backend: str | None = None,
    device: str | None = None,
    task: str | None = None,
    trust_remote_code: bool = False,
    preload: bool = False,
) -> dict[str, Any]:
    """Model flags under the names of their keys.

    Raises:
        ConfigurationError: `device` is a number and no backend is named, or the two contradict.
    """
    if device is not None:
        if device.isdecimal():
            if backend is None:
                raise ConfigurationError(
                    f"--device {device} is the number of a device of which backend? Write --device cuda:{device}."
                )
            device = f"{backend}:{device}"
        elif backend is not None and device.split(":")[0] != backend:
            raise ConfigurationError(f"--device {device} is not a device of --backend {backend}.")
        backend = device
    return {
        "aliases": list(alias),
        "revision": revision,
        "dtype": dtype,
        "max_length": max_length,
        "backend": backend,
        "task": task,
        "trust_remote_code": trust_remote_code,
        "preload": preload,
    }
