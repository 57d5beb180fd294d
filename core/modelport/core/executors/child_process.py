"""A child process with a socket to it: started, heard, and surely ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping

from modelport.contract.errors import ConfigurationError
from modelport.core.executors.output import Output

__all__ = ["ChildProcess"]

_TERM_S = 2.0
_POLL_S = 0.05


class ChildProcess:
    """`interpreter -m modelport.worker` in a session of its own, which gets nothing from this process but a socket, and a
    pipe for all it prints.

    `ended` is called once, on the event loop, when the process has ended; it is reaped by then. A child dies with the *thread*
    that started it, so start children on the main thread.
    """

    def __init__(
        self, interpreter: str, name: str, environment: Mapping[str, str], line: Callable[[str], None], ended: Callable[[], None]
    ) -> None:
        """Starts it.

        Raises:
            ConfigurationError: if the interpreter cannot be started, or the system is Windows.
        """
        if sys.platform == "win32":
            raise ConfigurationError(
                "Worker processes need Unix sockets, which Python lacks on Windows. Set models.NAME.isolation = 'thread' for "
                "models without torch, or run the server under WSL."
            )
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._has_ended = asyncio.Event()
        mine, theirs = socket.socketpair()
        read_end, write_end = os.pipe()
        command = [interpreter or sys.executable, "-P", "-m", "modelport.worker"]
        command += ["--socket", str(theirs.fileno()), "--parent", str(os.getpid()), "--name", name]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                close_fds=True,
                start_new_session=True,
            )
        except OSError as error:
            mine.close()
            os.close(read_end)
            raise ConfigurationError(
                f"The interpreter {command[0]!r} cannot be started: {error.strerror}. Set models.{name}.interpreter to a "
                "Python ≥ 3.11 that has modelport and the model's plugins."
            ) from error
        finally:
            theirs.close()
            os.close(write_end)
        self.socket = mine
        self.pid = self._process.pid
        self.output = Output([read_end], line)
        self._pidfd = self._open_pidfd()
        self._timer: asyncio.TimerHandle | None = None
        if self._pidfd is None:
            self._poll()
        else:
            self._loop.add_reader(self._pidfd, self._gone)

    def adopt(self, line: Callable[[str], None], ended: Callable[[], None]) -> None:
        """Gives a process that nobody has used yet to somebody else."""
        self.output.line = line
        self._ended = ended

    @property
    def is_running(self) -> bool:
        """Whether it has not been reaped."""
        return not self._has_ended.is_set()

    def how_it_ended(self) -> str:
        """`was killed by signal 9 (SIGKILL)`, or `exited with status 1`."""
        status = self._process.returncode
        if status is None:
            return "is running"
        if status < 0:
            try:
                name = signal.Signals(-status).name
            except ValueError:
                name = "unknown"
            hint = "; perhaps the system was out of memory" if -status == signal.SIGKILL else ""
            return f"was killed by signal {-status} ({name}{hint})"
        return f"exited with status {status}"

    def kill(self) -> None:
        """Ends it and everything in its session at once. `ended` follows."""
        self._signal_session(signal.SIGKILL)

    async def end(self, grace_s: float) -> None:
        """Waits for it to end by itself, then asks with SIGTERM, then kills its session. Returns when it is reaped."""
        for patience_s, number in ((grace_s, signal.SIGTERM), (_TERM_S, signal.SIGKILL)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_ended.wait(), patience_s)
                return
            self._signal_session(number)
        await self._has_ended.wait()

    def _signal_session(self, number: signal.Signals) -> None:
        if self.is_running:  # not reaped, so the id is still its own
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _open_pidfd(self) -> int | None:
        try:
            return os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            return None

    def _poll(self) -> None:
        """Where there are no process descriptors: looks now and then."""
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._gone()
        else:
            self._timer = self._loop.call_later(_POLL_S, self._poll)

    def _gone(self) -> None:
        if self._has_ended.is_set():
            return
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        # While it is a zombie its id names its session: whatever it started goes now.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.output.read_rest()
        self.output.close()
        self._has_ended.set()
        self._ended()
