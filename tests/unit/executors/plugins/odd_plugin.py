"""A skill without a program that does whatever its request says: the well and the badly behaved worker."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from modelport import hookimpl
from modelport.contract import Claim, InvalidRequest, Session, Skill, Task

MODELPORT_CONTRACT = "1.0"


class OddRequest(msgspec.Struct, kw_only=True):
    do: str = "echo"
    text: str = ""
    count: int = 0
    array: np.ndarray | None = None


class OddResult(msgspec.Struct, kw_only=True):
    text: str = ""
    pid: int = 0
    array: np.ndarray | None = None


class OddDelta(msgspec.Struct, kw_only=True):
    text: str = ""


def join(deltas: Iterable[OddDelta]) -> OddResult:
    return OddResult(text="".join(delta.text for delta in deltas))


def merge(first: OddDelta, second: OddDelta) -> OddDelta | None:
    return OddDelta(text=first.text + second.text)


ODD: Task[OddRequest, OddResult, OddDelta] = Task("odd", OddRequest, OddResult, OddDelta, join, merge)
KEPT: list[bytes] = []


class OddSession(Session):
    async def handle(self, request: OddRequest, run: Any) -> AsyncGenerator[Any, None]:
        match request.do:
            case "echo":
                yield OddResult(text=request.text, pid=os.getpid(), array=request.array)
            case "imported":
                yield OddResult(text=str(request.text in sys.modules))
            case "stream":
                await run.cpu(int)
                for index in range(request.count):
                    yield OddDelta(text=f"{index} ")
                    if request.text == "slowly":
                        await asyncio.sleep(0.001)
            case "for ever":
                await run.cpu(int)
                while True:
                    yield OddDelta(text="x")
                    await asyncio.sleep(0.005)
            case "wait":
                await asyncio.sleep(3600)
            case "wait on the pool":
                await run.cpu(time.sleep, 3600)
            case "refuse":
                raise InvalidRequest("text is not to be liked", param="text")
            case "raise":
                raise RuntimeError("the skill's own fault")
            case "raise badly":
                await run.cpu(self.raise_memory_error)
            case "wrong result":
                yield {"text": "not a struct"}
            case "wrong field":
                yield OddResult(text=7)  # type: ignore[arg-type]
            case "unsendable":
                yield OddResult(text=object())  # type: ignore[arg-type]
            case "nothing":
                return
            case "kill":
                await run.cpu(os.kill, os.getpid(), signal.SIGKILL)
            case "exit":
                print("last words", file=sys.stderr, flush=True)
                await run.cpu(os._exit, 3)
            case "kill at once":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hold the interpreter":
                await run.cpu(ctypes.PyDLL(None).sleep, 3600)
            case "flood":
                threading.Thread(target=self.flood, daemon=True).start()
                yield OddResult(text="printing")
            case "leak":
                KEPT.append(bytes(bytearray(os.urandom(1024)) * (request.count // 1024)))
                yield OddResult(text=str(len(KEPT)))
            case "environment":
                yield OddResult(text="\n".join(f"{name}={value}" for name, value in os.environ.items()))
            case "descriptors":
                yield OddResult(text=await run.cpu(self.descriptors))
            case "orphan":
                yield OddResult(pid=await run.cpu(self.start_another))

    def raise_memory_error(self) -> None:
        raise MemoryError("no room")

    def descriptors(self) -> str:
        return " ".join(path.name for path in Path("/proc/self/fd").iterdir())

    def start_another(self) -> int:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"]).pid

    def flood(self) -> None:
        while True:
            print("x" * 20_000)


class Odd(Skill):
    name = "odd"
    tasks = (ODD,)
    preload = ("colorsys",)

    def claim(self, card: Any) -> Claim | None:
        return None

    def session(self, context: Any) -> Session:
        match context.options.get("load"):
            case "raise":
                raise RuntimeError("cannot be loaded")
            case "hang":
                time.sleep(3600)
            case "die":
                print("libdriver.so: not found", file=sys.stderr, flush=True)
                os._exit(1)
        return OddSession(context)


@hookimpl
def register_skills() -> list[Skill]:
    return [Odd()]
