"""The Hub's cache on this disk, read by its layout: the server does not import huggingface_hub for a look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from modelport.core.config.schema import nearest
from modelport.core.config.settings import Settings

__all__ = ["cached_repositories", "find_snapshot", "hub_cache", "is_offline", "near_repository"]

_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
"""What huggingface_hub takes for true."""


def is_offline(settings: Settings, env: Mapping[str, str]) -> bool:
    """Whether the network is not to be used: by the configuration, or by the libraries' own variables."""
    return settings.offline or any(env.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def hub_cache(env: Mapping[str, str]) -> Path:
    """The folder in which huggingface_hub keeps snapshots."""
    named = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    home = env.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    cache = env.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "hub"


def find_snapshot(cache: Path, repo: str, revision: str | None = None) -> Path | None:
    """The folder of a repository's snapshot, if there is one. It may lack files."""
    storage = cache / ("models--" + repo.replace("/", "--"))
    name = revision or "main"
    if re.fullmatch(r"[0-9a-f]{40}", name):
        commit = name
    else:
        try:
            commit = (storage / "refs" / name).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
    snapshot = storage / "snapshots" / commit
    return snapshot if commit and snapshot.is_dir() else None


def cached_repositories(cache: Path) -> list[str]:
    """The ids of all models in the cache."""
    return sorted(path.name.removeprefix("models--").replace("--", "/", 1) for path in cache.glob("models--*"))


def near_repository(cache: Path, repo: str) -> str | None:
    """A model in the cache that is spelt almost like `repo`."""
    return nearest(repo, (name for name in cached_repositories(cache) if name != repo))
