"""The main function of a converter's process: a job on standard input, progress on standard output."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable

import msgspec

from modelport_convert.conversion import Told
from modelport_convert.job import Job

__all__ = ["Tell", "answer"]

Tell = Callable[[str, float], None]
_BREATH_S = 1.0
_PR_SET_PDEATHSIG = 1


def answer(convert: Callable[[Job, Tell], None], install: str) -> None:
    """Carries the job out and ends the process; standard output is kept for progress, whatever libraries print.

    Args:
        convert: Fills `job.out`; what it raises is told to the parent as a sentence.
        install: What to install if something cannot be imported.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    last = Told("starting", 0.0)

    def tell(what: str, fraction: float) -> None:
        nonlocal last
        last = Told(what, fraction)
        lines.write(msgspec.json.encode(last) + b"\n")

    def breathe() -> None:
        """A conversion is one long call: that this process lives and gets time is all that can be said meanwhile."""
        while True:
            time.sleep(_BREATH_S)
            tell(last.what, last.fraction)

    threading.Thread(target=breathe, daemon=True).start()
    status = 0
    try:
        convert(job, tell)
    except Exception as error:
        text = " ".join(str(error).split())[:600] or type(error).__name__
        if isinstance(error, ImportError):
            text += f"; {install}"
        lines.write(msgspec.json.encode(Told(error=text if text.endswith(".") else f"{text}.")) + b"\n")
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # libraries that were imported need no goodbye, and some take seconds for theirs
