"""The converter seen from outside: a child process that takes a job on its input and tells its progress."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import msgspec

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError
from modelport_convert.job import Job

__all__ = ["ChildConverter", "Convert", "Told"]

Convert = Callable[[Job, Progress], None]
"""Fills `job.out`, or raises `ConfigurationError`."""


class Told(msgspec.Struct, frozen=True):
    """A line of the child: how far it is, or why it gave up."""

    what: str = ""
    fraction: float = 0.0
    error: str = ""


class ChildConverter:
    """Converts in a process of its own, whose torch and memory are gone when it ends.

    Args:
        module: What the process runs; it calls `child.answer`.
        product: Who cannot convert, in error messages.
    """

    def __init__(self, module: str, product: str) -> None:
        self._module = module
        self._product = product

    def __call__(self, job: Job, progress: Progress) -> None:
        """Fills `job.out`.

        Raises:
            ConfigurationError: with the child's reason, or how it ended.
        """
        progress("starting the converter", 0.0)
        error, status = _run([sys.executable, "-m", self._module], msgspec.json.encode(job), progress)
        if error or status:
            why = error or f"the converter ended with status {status}."
            raise ConfigurationError(f"{self._product} cannot convert this model: {why}")


def _run(command: list[str], job: bytes, progress: Progress) -> tuple[str, int]:
    """What the child gave as the reason of its failure, and its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    error = ""
    try:
        with child.stdin:
            child.stdin.write(job)
        for line in child.stdout:
            told = msgspec.json.decode(line, type=Told)
            error = error or told.error
            if not told.error:
                progress(told.what, told.fraction)
        status = child.wait()
    except BrokenPipeError:
        status = child.wait()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    return error, status
