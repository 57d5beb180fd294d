"""`python -m modelport.worker`: one worker process. Started by the process executor, never by hand."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str] | None = None) -> None:
    """Runs a worker on an inherited socket until it is told to leave or the socket closes.

    The process ends without the interpreter's own shutdown: threads stuck in a driver, and libraries that take seconds to
    unload, would only delay the memory's return.
    """
    parser = argparse.ArgumentParser(prog="python -m modelport.worker", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the connection to the server")
    parser.add_argument("--parent", type=int, required=True, help="process id of the server")
    parser.add_argument("--name", default="", help="name of the deployment, for lists of processes")
    options = parser.parse_args(arguments)
    _die_with_parent(options.parent)
    os.set_inheritable(options.socket, False)
    from modelport.core.worker.loop import loop_factory

    status = 0
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_run(socket.socket(fileno=options.socket)))
    except BaseException:
        status = 1
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def _run(sock: socket.socket) -> None:
    from modelport.core.worker.child import Child
    from modelport.core.worker.loading import find_plugin

    await Child(sock, find_plugin).run()


def _die_with_parent(parent: int) -> None:
    """Asks the system to kill this process with its parent, since one that is stuck cannot notice by itself."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before we asked.
        os._exit(0)


if __name__ == "__main__":
    main()
