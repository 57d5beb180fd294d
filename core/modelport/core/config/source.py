"""What `models.NAME.source` may be: a folder, a Hub id, a family, a skill, or something a resolver knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

__all__ = ["Source", "parse_source"]

_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?)(@(?P<revision>[^@\s]+))?", re.ASCII)
_FAMILY = re.compile(r"hf_[a-z0-9][a-z0-9_.-]*", re.ASCII)
_FOLDER = re.compile(r"[/~\\]|\.{1,2}([/\\]|$)|[A-Za-z]:[/\\]")


class Source(msgspec.Struct, frozen=True):
    """A source, understood.

    `kind` says what `value` is: `folder` an absolute path, `hub` a repository id (`revision` beside it, if named), `family` a
    name (`hf_bert`), `skill` the name of a skill that needs no checkpoint, `other` text that only a resolver may know.
    """

    kind: Literal["folder", "hub", "family", "skill", "other"]
    value: str
    revision: str | None = None


def parse_source(text: str, revision: str | None = None) -> Source:
    """What `text` names. A folder that exists wins over a Hub id of the same name; relative folders start where the command ran.

    `org/name@revision` names a revision, which `revision` overrides.
    """
    if text.startswith("skill:"):
        return Source("skill", text.removeprefix("skill:"))
    if _FOLDER.match(text) or ("://" not in text and Path(text).is_dir()):
        return Source("folder", str(Path(text).expanduser().absolute()))
    if _FAMILY.fullmatch(text):
        return Source("family", text, revision)
    if match := _HUB.fullmatch(text):
        return Source("hub", match["repo"], revision or match["revision"])
    return Source("other", text, revision)
