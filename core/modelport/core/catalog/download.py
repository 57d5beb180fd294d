"""The download child: fetches one repository of the Hub and tells its parent how far it is, in lines of JSON on stdout.

`python -m modelport.core.catalog.download` reads one `Job` from stdin and ends when stdin closes. The server never imports
huggingface_hub: that is here.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from modelport.contract.errors import ConfigurationError, ModelportError, Unavailable, WireError
from modelport.core.catalog.files import CONVERT_HINT, other_weights, pickles, safetensors_weights, wanted

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["Done", "Failed", "Job", "Line", "Moved", "explain"]

_REPORT_S = 0.25


class Job(msgspec.Struct):
    """What to fetch."""

    repo: str
    revision: str | None = None
    near: str | None = None
    """A repository of a similar name, for the message if this one does not exist."""


class Moved(msgspec.Struct, tag="moved"):
    """So many bytes of so many are there."""

    bytes: int
    total: int


class Done(msgspec.Struct, tag="done"):
    """The snapshot is whole."""

    folder: str
    commit: str
    files: list[str]


class Failed(msgspec.Struct, tag="failed"):
    """It cannot be had; the error says why."""

    error: WireError


Line = Moved | Done | Failed


def main() -> None:
    """Runs the job on stdin."""
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _tell(_fetch(job))
    except ModelportError as error:
        _tell(Failed(error.to_wire()))
    except Exception as error:
        _tell(Failed(explain(error, job).to_wire()))


def _end_with_parent() -> NoReturn:
    # Not through sys.stdin: a thread that waits in its buffer would hold up the interpreter's end.
    while os.read(0, 4096):
        pass
    os._exit(1)


def _tell(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _fetch(job: Job) -> Done:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE

    info = HfApi().model_info(job.repo, revision=job.revision, files_metadata=True, timeout=30)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    files = _choose(job, sizes)
    storage = Path(HF_HUB_CACHE, "models--" + job.repo.replace("/", "--"))
    have = _snapshot_files(storage, info)
    missing = sum(sizes[file] for file in files if file not in have)
    _check_room(job, Path(HF_HUB_CACHE), missing)
    total = sum(sizes[file] for file in files)
    stop = threading.Event()
    reporter = threading.Thread(target=_report, args=(storage / "blobs", total - missing, total, stop), daemon=True)
    reporter.start()
    try:
        folder = snapshot_download(job.repo, revision=job.revision, allow_patterns=[escape(file) for file in files])
    finally:
        stop.set()
        reporter.join()
    return Done(folder, Path(folder).name, files)


def _choose(job: Job, sizes: dict[str, int]) -> list[str]:
    if "config.json" not in sizes:
        raise ConfigurationError(
            f"{job.repo} on the Hub holds no config.json, so it is not a transformers checkpoint. Look for the repository of the "
            "model itself, not of a part or a conversion."
        )
    if not safetensors_weights(sizes) and not other_weights(sizes) and pickles(sizes):
        raise ConfigurationError(f"The weights of {job.repo} are pickle only ({', '.join(pickles(sizes)[:3])}). {CONVERT_HINT}.")
    return wanted(sizes)


def _snapshot_files(storage: Path, info: ModelInfo) -> set[str]:
    snapshot = storage / "snapshots" / str(info.sha)
    return {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()}


def _check_room(job: Job, cache: Path, needed: int) -> None:
    folder = cache
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigurationError(
            f"{job.repo} needs {_size(needed)} and {cache} has room for {_size(free)}. Free some space, or set HF_HOME to a "
            "larger disk."
        )


def _report(blobs: Path, before: int, total: int, stop: threading.Event) -> None:
    """Says how many bytes lie in the cache. Measured on disk, because every release of the library counts in another way."""
    start = _bytes_in(blobs)
    while not stop.wait(_REPORT_S):
        _tell(Moved(min(total, before + max(0, _bytes_in(blobs) - start)), total))


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.glob("*"):
        try:
            size += path.stat().st_size
        except OSError:
            continue
    return size


def _size(count: float) -> str:
    units = ["bytes", "KB", "MB", "GB", "TB", "PB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.0f} {units[0]}"


def explain(error: Exception, job: Job) -> ModelportError:
    """What went wrong, in a sentence that says what to do."""
    from huggingface_hub import errors

    name = f"{job.repo} at {job.revision}" if job.revision else job.repo
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if _errno(error) == errno.ENOSPC:
        return ConfigurationError(f"The disk is full while fetching {name}. Free some space, or set HF_HOME to a larger disk.")
    if isinstance(error, errors.GatedRepoError):
        page = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{job.repo}"
        return ConfigurationError(
            f"{job.repo} is gated: accept its licence at {page} while logged in, and set HF_TOKEN to a token of that account."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigurationError(f"{job.repo} has no revision {job.revision!r}. Name a branch, a tag or a commit that it has.")
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        near = f" Did you mean {job.near}?" if job.near else ""
        return ConfigurationError(
            f"The Hub has no model {job.repo}, or it is private.{near} Check the spelling; for a private one set HF_TOKEN."
        )
    if status == 401:
        return ConfigurationError(f"The Hub refused the token while fetching {name}. Set HF_TOKEN to a valid one, or unset it.")
    if isinstance(error, errors.HFValidationError):
        return ConfigurationError(f"{job.repo!r} is neither a folder nor a Hub id (org/model). Check the spelling.")
    if status is not None:
        return Unavailable(f"The Hub answered {status} while {name} was fetched. Try again later.")
    if _is_transport_error(error) or isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return Unavailable(
            f"The Hub could not be reached to fetch {name}. Check the network, or give a local folder as the source."
        )
    if isinstance(error, OSError):
        return ConfigurationError(f"{name} could not be stored: {error.strerror or error}. Check the folder that HF_HOME names.")
    return ModelportError(f"Fetching {name} failed with {type(error).__name__}: {error}")


def _is_transport_error(error: Exception) -> bool:
    """Whether the network failed. By name: huggingface_hub 1 speaks through httpx and 2 through httpx2, whose classes differ."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


def _errno(error: BaseException | None) -> int | None:
    """The system's number of what went wrong, however deep it is wrapped."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
