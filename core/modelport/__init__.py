"""modelport: one server for any Hugging Face model, on any hardware, through any protocol."""

from typing import TYPE_CHECKING, Any

import pluggy

hookimpl = pluggy.HookimplMarker("modelport")
"""Marks a plugin's hook implementations: `from modelport import hookimpl`."""

__version__ = "0.1.0"

if TYPE_CHECKING:
    from modelport.client import AsyncClient, Client
    from modelport.client.engine import Engine

__all__ = ["AsyncClient", "Client", "Engine", "__version__", "hookimpl"]

_LAZY = {"AsyncClient": "modelport.client", "Client": "modelport.client", "Engine": "modelport.client.engine"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'modelport' has no attribute {name!r}")
