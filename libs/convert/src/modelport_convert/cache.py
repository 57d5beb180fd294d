"""Converted models on disk: one folder for each checkpoint, program, recipe and set of converting tools."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from modelport.contract.backend import LoadContext, Progress
from modelport.contract.errors import ConfigurationError
from modelport_convert.conversion import Convert
from modelport_convert.job import Job

__all__ = ["ConversionCache"]

_WHOLE_BYTES = 64 << 20
_LOOK_S = 0.5


class ConversionCache:
    """Folders under `root`. A folder is there whole or not at all: it is written beside and renamed.

    Whoever converts holds a lock that the system releases when its process ends, however it ends; others wait for it, and what
    a killed conversion left is removed by the next.

    Args:
        backend: Its name in configuration. `backends.<name>.cache` in `options` names the folder, by default
            `modelport/<name>` in the user's cache folder.
        tools: Distributions whose versions decide the result; the backend's own format number may stand among them.
    """

    def __init__(self, backend: str, options: Mapping[str, Any], tools: Sequence[str]) -> None:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.root = Path(str(options.get("cache") or f"{caches}/modelport/{backend}")).expanduser()
        self._backend = backend
        self._tools = tools

    def get(self, context: LoadContext, recipe: Mapping[str, Any], convert: Convert, progress: Progress) -> Path:
        """The folder of a converted program, converted now if need be.

        Raises:
            ConfigurationError: it cannot be converted, or not be written.
        """
        target = self.root / self.key(context, recipe)
        if target.is_dir():
            progress("converted before", 0.5)
            return target
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._locked(target, progress):
                if not target.is_dir():
                    self._make(target, context, recipe, convert, progress)
        except OSError as error:
            why = f"{error.strerror or error} ({error.filename or self.root})"
            raise ConfigurationError(
                f"the converted model cannot be kept: {why}. Make room, or set backends.{self._backend}.cache to another folder."
            ) from error
        return target

    @contextmanager
    def _locked(self, target: Path, progress: Progress) -> Iterator[None]:
        """Holds the lock of `target`; tells while somebody else has it, so that the wait is not taken for a stall."""
        lock = filelock.FileLock(f"{target}.lock")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_LOOK_S)
            except filelock.Timeout:
                progress("waiting for another conversion of the same model", 0.0)
        try:
            yield
        finally:
            lock.release()

    def _make(self, target: Path, context: LoadContext, recipe: Mapping[str, Any], convert: Convert, progress: Progress) -> None:
        draft = target.with_name(f"{target.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        needed, free = context.card.weight_bytes, shutil.disk_usage(self.root).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"it takes about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free", str(self.root))
        draft.mkdir()
        job = Job(
            program=context.program,
            checkpoints={name: str(folder) for name, folder in context.checkpoints.items()},
            dtype=context.card.dtype,
            recipe=dict(recipe),
            out=str(draft),
            trust_remote_code=context.card.trust_remote_code,
            config=context.card.config,
            stays_s=float(context.options.get("converter_stays_s", 0)),
        )
        try:
            convert(job, progress)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def key(self, context: LoadContext, recipe: Mapping[str, Any]) -> str:
        """The name of a conversion's folder: whatever would change the result changes the name."""
        how = json.dumps(dict(recipe), sort_keys=True)
        total = hashlib.sha256(f"{how} {context.card.dtype} {context.program.digest}".encode())
        for tool in self._tools:
            total.update(f"{tool} {_version(tool)}\n".encode())
        for name, folder in sorted(context.checkpoints.items()):
            revision = context.card.revision if name == "main" and context.card.revision else _signature(folder)
            total.update(f"{name} {revision}\n".encode())
        return f"{_letters(context.card.model_type or 'model')}-{total.hexdigest()[:20]}"


def _signature(folder: Path) -> str:
    """A digest of a folder's files: contents, and for large ones size and time."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        total.update(f"{path.relative_to(folder)} {stat.st_size}".encode())
        total.update(path.read_bytes() if stat.st_size <= _WHOLE_BYTES else str(stat.st_mtime_ns).encode())
    return total.hexdigest()


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _letters(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60]
