"""Rules that a type cannot state: what models may be called, and which keys need each other."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelport.contract.api import RESERVED_NAMES
from modelport.contract.host import AUTO
from modelport.core.config.schema import Fault, Path, dotted, shown
from modelport.core.config.source import parse_source

__all__ = ["check_rules", "name_fault"]

_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?", re.ASCII | re.IGNORECASE)
_PART = re.compile(r"[\w.:@+-]+", re.ASCII)


def name_fault(name: str) -> str | None:
    """Why `name` cannot name a model, or None if it can. Names stand in URLs, so they are one or two plain segments."""
    parts = name.split("/")
    if len(parts) > 2:
        return f"{shown(name)} has more than one slash; a model's name has at most one, as in org/model"
    if not all(_PART.fullmatch(part) and part.strip(".") for part in parts):
        return f"{shown(name)} cannot be a model's name; use letters, digits and . _ - : @ + around at most one slash"
    if parts[-1] in RESERVED_NAMES:
        words = ", ".join(sorted(RESERVED_NAMES))
        return f"{shown(name)} cannot be a model's name: it must not end in a word that follows names in routes ({words})"
    if name == AUTO:
        return f"{shown(name)} cannot be a model's name: it leaves the choice of the model to the server"
    return None


def check_rules(tree: Mapping[str, Any]) -> Iterator[Fault]:
    """Every broken rule in a tree whose types may be wrong as well."""
    models = {name: model for name, model in _table(tree.get("models")).items() if isinstance(model, Mapping)}
    yield from _names(models)
    for name, model in models.items():
        yield from _remote_code(("models", name), model)
    server = _table(tree.get("server"))
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if server.get(one) and not server.get(other):
            yield Fault(("server", one), f"needs server.{other} as well")
    yield from _media(_table(tree.get("media")))
    for kind in ("apis", "backends", "skills", "executors"):
        for plugin, options in _table(tree.get(kind)).items():
            enabled = _table(options).get("enabled", True)
            if not isinstance(enabled, bool):
                yield Fault((kind, plugin, "enabled"), f"expected true or false, got {shown(enabled)}")


def _names(models: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    owners: dict[str, Path] = {name: ("models", name) for name in models}
    for name, model in models.items():
        if fault := name_fault(name):
            yield Fault(("models", name), fault)
        aliases = model.get("aliases")
        for index, alias in enumerate(aliases if isinstance(aliases, list) else ()):
            if not isinstance(alias, str):
                continue
            path: Path = ("models", name, "aliases", index)
            if fault := name_fault(alias):
                yield Fault(path, fault)
            elif alias in owners:
                yield Fault(path, _clash(alias, name, owners[alias]))
            else:
                owners[alias] = path


def _clash(alias: str, name: str, owner: Path) -> str:
    what = "the name" if len(owner) == 2 else "an alias"
    return f"{shown(alias)} is {what} of {dotted(owner[:2])} already; it cannot mean {dotted(('models', name))} too"


def _remote_code(path: Path, model: Mapping[str, Any]) -> Iterator[Fault]:
    source, revision = model.get("source"), model.get("revision")
    if model.get("trust_remote_code") is not True or not isinstance(source, str):
        return
    parsed = parse_source(source, revision if isinstance(revision, str) else None)
    if parsed.kind in ("hub", "family") and not parsed.revision:
        message = f"needs {dotted((*path, 'revision'))}: name the commit whose code you have read"
        yield Fault((*path, "trust_remote_code"), message)


def _media(media: Mapping[str, Any]) -> Iterator[Fault]:
    for key, form, example in (("allowed_hosts", _HOST, "pictures.example.com"), ("allowed_networks", None, "10.1.0.0/16")):
        entries = media.get(key)
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, str) and not (form.fullmatch(entry) if form else _is_network(entry)):
                what = "a host" if form else "a network"
                yield Fault(("media", key, index), f"{shown(entry)} is not {what}; write it like {example}")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
