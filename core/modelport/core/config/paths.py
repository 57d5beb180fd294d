"""Where modelport keeps files: caches that may be deleted, and state that may not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from modelport.core.config.settings import Settings

__all__ = ["cache_dir", "state_dir"]


def cache_dir(settings: Settings, env: Mapping[str, str] | None = None) -> Path:
    """The folder of what can be made again: `cache_dir`, else `$XDG_CACHE_HOME/modelport`. It may not exist yet."""
    return _folder(settings.cache_dir, "XDG_CACHE_HOME", ".cache", env)


def state_dir(settings: Settings, env: Mapping[str, str] | None = None) -> Path:
    """The folder of keys: `state_dir`, else `$XDG_STATE_HOME/modelport`. It may not exist yet."""
    return _folder(settings.state_dir, "XDG_STATE_HOME", ".local/state", env)


def _folder(configured: str | None, variable: str, below_home: str, env: Mapping[str, str] | None) -> Path:
    if configured:
        return Path(configured).expanduser().absolute()
    base = (os.environ if env is None else env).get(variable, "")
    # The XDG specification asks to ignore relative values.
    root = Path(base) if Path(base).is_absolute() else Path.home() / below_home
    return root / "modelport"
