"""The examinations of `modelport doctor`. Each looks at one thing and says what it found and what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from modelport.contract.errors import ModelportError
from modelport.core.cli.listening import is_loopback
from modelport.core.cli.options import loaded
from modelport.core.cli.output import bytes_text
from modelport.core.cli.parts import Parts, assemble
from modelport.core.cli.probing import probe
from modelport.core.config.paths import cache_dir, state_dir
from modelport.core.config.settings import Settings
from modelport.core.serving.keys import Keyring

__all__ = ["Finding", "examine"]

_ROOM_BYTES = 5_000_000_000
_PACKAGES = ("modelport", "torch", "transformers", "tokenizers", "huggingface-hub", "litestar", "uvicorn", "msgspec")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. A `warning` may be meant; a `problem` keeps something from working."""

    check: str
    state: Literal["ok", "warning", "problem"] = "ok"
    detail: str


def examine(config: Path | None) -> list[Finding]:
    """Everything that was found, in the order in which it was looked at. Nothing is changed."""
    findings = [_python(), _packages()]
    try:
        found = loaded(config)
    except ModelportError as error:
        return [*findings, Finding(check="configuration", state="problem", detail=error.message)]
    where = str(found.file) if found.file else "no file, defaults and variables"
    findings.append(Finding(check="configuration", detail=f"{where}; {len(found.settings.models)} models"))
    try:
        parts = assemble(config)
    except ModelportError as error:
        findings.append(Finding(check="plugins", state="problem", detail=error.message))
    else:
        findings += [*_plugins(parts), *_hardware(parts)]
    settings = found.settings
    return [*findings, *_folders(settings), _keys(settings), _port(settings), _hub(settings)]


def _python() -> Finding:
    return Finding(check="python", detail=f"{sys.version.split()[0]} at {sys.executable}")


def _packages() -> Finding:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} is not installed")
    return Finding(check="packages", detail=", ".join(found))


def _plugins(parts: Parts) -> Iterator[Finding]:
    for record in parts.registry.failed:
        yield Finding(check=f"plugin {record.kind}.{record.name}", state="problem", detail=record.reason)
    for kind, example in (("backends", "backend-cpu"), ("skills", "skill-text-generation"), ("apis", "api-openai")):
        names = sorted(parts.registry.objects(kind))
        if names:
            yield Finding(check=kind, detail=", ".join(names))
        else:
            yield Finding(check=kind, state="problem", detail=f"none is enabled. Try: pip install modelport-{example}")


def _hardware(parts: Parts) -> Iterator[Finding]:
    for name, found in asyncio.run(probe(parts)).items():
        if found.devices:
            yield Finding(check=f"hardware {name}", detail=", ".join(f"{device.id} {device.name}" for device in found.devices))
        else:
            yield Finding(check=f"hardware {name}", state="warning", detail=found.reason or "no device was found")


def _folders(settings: Settings) -> Iterator[Finding]:
    for name, folder in (("cache", cache_dir(settings)), ("state", state_dir(settings))):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        if not (there.is_dir() and os.access(there, os.W_OK)):
            yield Finding(check=name, state="problem", detail=f"{folder} cannot be written. Set {name}_dir to a folder that can.")
        elif name == "cache" and free < _ROOM_BYTES:
            yield Finding(check=name, state="warning", detail=f"{folder} has {bytes_text(free)} left; a model may not fit")
        else:
            yield Finding(check=name, detail=f"{folder}, {bytes_text(free)} free")


def _keys(settings: Settings) -> Finding:
    keyring = Keyring.of(settings)
    try:
        count = len(keyring.list())
    except ModelportError as error:
        return Finding(check="keys", state="problem", detail=error.message)
    if not keyring.in_force:
        if is_loopback(settings.server.host):
            return Finding(check="keys", detail=f"none is needed; {settings.server.host} is reached from this machine only")
        return Finding(check="keys", state="warning", detail="none is needed: whoever reaches the port may use the server")
    if not count:
        return Finding(check="keys", state="problem", detail="needed, and there is none. Try: modelport keys create NAME")
    if os.name != "nt" and keyring.path.stat().st_mode & 0o077:
        return Finding(check="keys", state="warning", detail=f"others may read {keyring.path}. Try: chmod 600 {keyring.path}")
    return Finding(check="keys", detail=f"{count} in {keyring.path}")


def _port(settings: Settings) -> Finding:
    server = settings.server
    if server.port == 0:
        return Finding(check="port", detail="any free one")
    try:
        family, _, _, _, address = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probing:
            probing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probing.bind(address)
    except OSError as error:
        detail = f"{server.host} port {server.port}: {error.strerror or error}. A running server, or choose another with --port."
        return Finding(check="port", state="warning", detail=detail)
    return Finding(check="port", detail=f"{server.host} port {server.port} is free")


def _hub(settings: Settings) -> Finding:
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    if settings.offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return Finding(check="hub", state="warning", detail=f"offline: only what is in {home}, and local folders")
    token = "a token is set" if os.environ.get("HF_TOKEN") or Path(home).expanduser().joinpath("token").is_file() else "no token"
    return Finding(check="hub", detail=f"{token}; cache in {home}")
