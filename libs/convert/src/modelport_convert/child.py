"""The main function of a converter's process: a job on standard input, progress on standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import BinaryIO, NoReturn

import msgspec

from modelport_convert.conversion import Told
from modelport_convert.job import Job

__all__ = ["Tell", "answer"]

Tell = Callable[[str, float], None]
_BREATH_S = 1.0
_PR_SET_PDEATHSIG = 1


def answer(convert: Callable[[Job, Tell], None], install: str, preload: Callable[[], None] = lambda: None) -> None:
    """Carries the job out and ends the process; standard output is kept for progress, whatever libraries print.

    On Linux a job may ask the process to stay: it is then carried out in a fork, and so are those that follow. The process ends
    when none has come for a while, or as soon as its input does.

    Args:
        convert: Fills `job.out`; what it raises is told to the parent as a sentence.
        install: What to install if something cannot be imported.
        preload: Imports what conversions need, for a process that stays. It may start no thread.
    """
    speaker = _Speaker(os.fdopen(os.dup(1), "wb", buffering=0))
    os.dup2(2, 1)
    job = _next_job()
    if job is not None and job.stays_s and sys.platform == "linux":
        with speaker.breathing(), contextlib.suppress(ImportError):
            speaker.tell("importing what converts", 0.0)
            preload()
        while job is not None and (fork := os.fork()):
            speaker.say(Told(ended=_status(fork)))
            job = _next_job(within_s=2 * job.stays_s)
    if job is not None:
        _carry_out(job, convert, install, speaker)


class _Speaker:
    """Writes lines for the parent."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._last = Told("starting", 0.0)

    def say(self, told: Told) -> None:
        self._lines.write(msgspec.json.encode(told) + b"\n")

    def tell(self, what: str, fraction: float) -> None:
        self._last = Told(what, fraction)
        self.say(self._last)

    @contextlib.contextmanager
    def breathing(self) -> Iterator[None]:
        """Repeats itself: what takes long is one long call, and that this process lives and gets time is all that can be said."""
        over = threading.Event()

        def breathe() -> None:
            while not over.wait(_BREATH_S):
                self.say(self._last)

        thread = threading.Thread(target=breathe, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _next_job(within_s: float | None = None) -> Job | None:
    """None if the parent has gone, or has none in time."""
    if within_s is not None and not select.select([sys.stdin], [], [], within_s)[0]:
        return None
    line = sys.stdin.buffer.readline()
    return msgspec.json.decode(line, type=Job) if line else None


def _status(fork: int) -> int:
    """How a fork ended. It is killed, and this process ends, if the parent goes meanwhile."""
    end = os.pidfd_open(fork)
    ready, _, _ = select.select([sys.stdin, end], [], [])
    os.close(end)
    if end not in ready:  # the parent sends nothing while it waits: this is the end of its pipe
        os.kill(fork, signal.SIGKILL)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])


def _carry_out(job: Job, convert: Callable[[Job, Tell], None], install: str, speaker: _Speaker) -> NoReturn:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    status = 0
    with speaker.breathing():
        try:
            convert(job, speaker.tell)
        except Exception as error:
            text = " ".join(str(error).split())[:600] or type(error).__name__
            if isinstance(error, ImportError):
                text += f"; {install}"
            speaker.say(Told(error=text if text.endswith(".") else f"{text}."))
            traceback.print_exc()
            status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries that were imported need no goodbye, and some take seconds for theirs
