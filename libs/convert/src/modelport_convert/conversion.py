"""The converter seen from outside: a child process that takes a job on its input and tells its progress."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable

import msgspec

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError
from modelport_convert.job import Job

__all__ = ["ChildConverter", "Convert", "Told"]

Convert = Callable[[Job, Progress], None]
"""Fills `job.out`, or raises `ConfigurationError`."""


class Told(msgspec.Struct, frozen=True):
    """A line of the child: how far it is, why it gave up, or with which status the job ended while the child stays for more."""

    what: str = ""
    fraction: float = 0.0
    error: str = ""
    ended: int | None = None


class ChildConverter:
    """Converts in a process of its own, whose torch and memory are gone when it ends.

    A job may ask its process to stay: the next job then finds the libraries imported.

    Args:
        module: What the process runs; it calls `child.answer`.
        product: Who cannot convert, in error messages.
    """

    def __init__(self, module: str, product: str) -> None:
        self._module = module
        self._product = product
        self._staying = _STAYING.setdefault(module, [])

    def __call__(self, job: Job, progress: Progress) -> None:
        """Fills `job.out`.

        Raises:
            ConfigurationError: with the child's reason, or how it ended.
        """
        progress("starting the converter", 0.0)
        child = self._staying.pop() if self._staying else None
        if child is None or not child.stays:
            child = _Child(self._module)
        why = child.carry_out(job, progress)
        if child.stays:
            self._staying.append(child)
        if why:
            raise ConfigurationError(f"{self._product} cannot convert this model: {why}")


class _Child:
    """The process. It is gone after its job, whatever came of it, unless it said that it stays."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stays_until = 0.0

    @property
    def stays(self) -> bool:
        """Whether it takes another job. It waits for longer than it is counted upon, so that none is lost in between."""
        return time.monotonic() < self._stays_until and self._process.poll() is None

    def carry_out(self, job: Job, progress: Progress) -> str:
        """Why the job was not done, as a sentence; empty if it was."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stays_until = 0.0
        error, status = "", None
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                told = msgspec.json.decode(line, type=Told)
                error, status = error or told.error, told.ended
                if status is not None:
                    self._stays_until = time.monotonic() + job.stays_s
                    break
                if not told.error:
                    progress(told.what, told.fraction)
        except BrokenPipeError:
            pass  # it ended at once; its status is all there is to say
        except BaseException:
            process.kill()
            raise
        finally:
            if status is None:
                status = process.wait()
                process.stdin.close()
                process.stdout.close()
        return error or (f"the converter ended with status {status}." if status else "")


_STAYING: dict[str, list[_Child]] = {}
"""Those that wait for another job, by module: backends come and go with the models that a worker loads."""
