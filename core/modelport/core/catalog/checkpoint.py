"""Checkpoints on disk: a folder as it is, a Hub id from its cache or through the download child."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError, ModelportError, Unavailable, error_from_wire
from modelport.contract.extension import Resolver
from modelport.core.catalog.download import Done, Failed, Job, Line, Moved
from modelport.core.catalog.hub import find_snapshot, hub_cache, is_offline, near_repository
from modelport.core.config.paths import cache_dir
from modelport.core.config.settings import Settings
from modelport.core.config.source import Source, parse_source

__all__ = ["Checkpoints"]

_log = structlog.stdlib.get_logger("modelport.catalog")
_STDERR_BYTES = 65_536
_LINE_BYTES = 16_777_216


class _Receipt(msgspec.Struct):
    """What a finished download left: its snapshot is whole as long as these files are there."""

    folder: str
    files: list[str]


class Checkpoints:
    """Turns sources into folders.

    Args:
        settings: For `offline`, the cache directory and the stall limit.
        resolvers: Asked, in order, about sources that are no local folder.
        env: The environment of downloads (`HF_TOKEN`, `HF_HOME`, `HF_ENDPOINT`, …).
    """

    def __init__(self, settings: Settings, resolvers: Sequence[Resolver] = (), env: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._resolvers = resolvers
        self._env = dict(os.environ if env is None else env)
        self._locks: dict[tuple[str, str | None], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def fetch(self, source: str, revision: str | None = None, progress: Progress | None = None) -> Path:
        """The folder of a checkpoint, which may have to be fetched first.

        Two fetches of one repository become one download. Cancelling ends the download; what it has is kept for the next.

        Raises:
            ConfigurationError: it is gated, misspelt, unsafe, or there is no room; one sentence that says what to do.
            Unavailable: the Hub cannot be reached.
        """
        parsed = parse_source(source, revision)
        if parsed.kind == "folder":
            return _folder(parsed.value)
        for resolver in self._resolvers:
            try:
                found = await asyncio.to_thread(resolver.resolve, source, parsed.revision)
            except Exception as error:
                _log.warning("resolver failed", resolver=resolver.name, source=source, error=repr(error))
                continue
            if found is not None:
                return Path(found)
        if parsed.kind != "hub":
            raise ConfigurationError(
                f"{source!r} is no local folder, no Hub id (org/model), and no installed resolver knows it. Check the spelling."
            )
        async with self._locks[parsed.value, parsed.revision]:
            return await self._hub(parsed, progress or _silent)

    async def _hub(self, source: Source, progress: Progress) -> Path:
        snapshot = find_snapshot(hub_cache(self._env), source.value, source.revision)
        receipt = self._receipt(source)
        if snapshot is not None and (folder := _whole(receipt, snapshot)):
            return folder
        usable = snapshot if snapshot is not None and (snapshot / "config.json").is_file() else None
        if is_offline(self._settings, self._env):
            if usable is not None:
                return usable
            raise ConfigurationError(
                f"{source.value} is not in the cache ({hub_cache(self._env)}), and modelport is offline. Fetch it once while "
                "online, or give a local folder as the source."
            )
        try:
            done = await self._download(source, progress)
        except Unavailable as error:
            if usable is None:
                raise
            # Another program may have fetched it; whether all of it is there, reading it will tell.
            _log.warning("the Hub is unreachable, using the cache", source=source.value, folder=str(usable), error=error.message)
            return usable
        with suppress(OSError):
            receipt.parent.mkdir(parents=True, exist_ok=True)
            temporary = receipt.with_suffix(f".{os.getpid()}")
            temporary.write_bytes(msgspec.json.encode(_Receipt(done.folder, done.files)))
            temporary.replace(receipt)
        return Path(done.folder)

    def _receipt(self, source: Source) -> Path:
        name = hashlib.sha256(f"{source.value}@{source.revision or 'main'}".encode()).hexdigest()[:32]
        return cache_dir(self._settings, self._env) / "fetched" / f"{name}.json"

    async def _download(self, source: Source, progress: Progress) -> Done:
        near = near_repository(hub_cache(self._env), source.value)
        job = msgspec.json.encode(Job(source.value, source.revision, near)) + b"\n"
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "modelport.core.catalog.download",
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=self._child_env(),
            start_new_session=True,
            limit=_LINE_BYTES,
        )
        assert child.stdin is not None
        assert child.stderr is not None
        errors = asyncio.create_task(_tail(child.stderr))
        try:
            with suppress(ConnectionError):
                child.stdin.write(job)
                await child.stdin.drain()
            return await self._follow(child, source, progress, errors)
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
            child.stdin.close()
            await child.wait()
            await errors

    async def _follow(self, child: Process, source: Source, progress: Progress, errors: asyncio.Task[str]) -> Done:
        assert child.stdout is not None
        stall_s = self._settings.limits.load_stall_s
        loop = asyncio.get_running_loop()
        moved, moved_at = -1, loop.time()
        progress(f"fetching {source.value}", 0.0)
        while True:
            try:
                raw = await asyncio.wait_for(child.stdout.readline(), stall_s)
            except TimeoutError:
                raise _stalled(source, stall_s) from None
            if not raw:
                await child.wait()
                last = (await errors).strip().rpartition("\n")[2]
                raise ModelportError(f"Fetching {source.value} ended with exit status {child.returncode}: {last or 'no message'}")
            line: Line = msgspec.json.decode(raw, type=Line)
            if isinstance(line, Done):
                progress(f"fetching {source.value}", 1.0)
                return line
            if isinstance(line, Failed):
                raise error_from_wire(line.error)
            if isinstance(line, Moved):
                if line.bytes != moved:
                    moved, moved_at = line.bytes, loop.time()
                    progress(f"fetching {source.value}", line.bytes / line.total if line.total else 0.0)
                elif loop.time() - moved_at > stall_s:
                    raise _stalled(source, stall_s)

    def _child_env(self) -> dict[str, str]:
        # Settings, keys and tokens of the server are none of a download's business.
        env = {name: value for name, value in self._env.items() if not name.startswith("MODELPORT_")}
        return {**env, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}


def _folder(path: str) -> Path:
    if not Path(path).is_dir():
        raise ConfigurationError(f"The folder {path} does not exist. Correct the source, or give a Hub id (org/model).")
    return Path(path)


def _silent(what: str, fraction: float) -> None:
    """Progress that nobody asked for."""


def _stalled(source: Source, stall_s: float) -> Unavailable:
    return Unavailable(f"Fetching {source.value} stalled: no byte came for {stall_s:g} s. Check the network and try again.")


def _whole(receipt: Path, snapshot: Path) -> Path | None:
    try:
        known = msgspec.json.decode(receipt.read_bytes(), type=_Receipt)
    except (OSError, msgspec.DecodeError):
        return None
    same = Path(known.folder) == snapshot
    return snapshot if same and all((snapshot / file).is_file() for file in known.files) else None


async def _tail(stream: asyncio.StreamReader) -> str:
    """The end of a stream, read to its end without pause."""
    text = b""
    while chunk := await stream.read(8192):
        text = (text + chunk)[-_STDERR_BYTES:]
    return text.decode("utf-8", "replace")
