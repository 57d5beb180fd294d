"""The converter seen from outside: a child process that takes a job on its input and tells its progress."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import msgspec

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError
from modelport_backend_openvino.job import Job

__all__ = ["Convert", "Told", "convert_in_child"]

Convert = Callable[[Job, Progress], None]
"""Fills `job.out`, or raises `ConfigurationError`."""


class Told(msgspec.Struct, frozen=True):
    """A line of the child: how far it is, or why it gave up."""

    what: str = ""
    fraction: float = 0.0
    error: str = ""


def convert_in_child(job: Job, progress: Progress) -> None:
    """Converts in a process of its own, whose torch and memory are gone when it ends.

    Raises:
        ConfigurationError: with the child's reason, or how it ended.
    """
    progress("starting the converter", 0.0)
    child = subprocess.Popen(
        [sys.executable, "-m", "modelport_backend_openvino.convert"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    error = ""
    try:
        with child.stdin:
            child.stdin.write(msgspec.json.encode(job))
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
    if error or status:
        raise ConfigurationError(f"OpenVINO cannot convert this model: {error or f'the converter ended with status {status}.'}")
