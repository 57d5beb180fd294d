"""What is known of a plugin, whether it is in use or not."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["KINDS", "Kind", "PluginRecord", "group"]

Kind = Literal["backends", "skills", "apis", "executors"]

KINDS: tuple[Kind, ...] = ("backends", "skills", "apis", "executors")
"""The kinds of plugins, as they are called in configuration and in entry point groups."""


def group(kind: str) -> str:
    """The entry point group of a kind."""
    return f"modelport.{kind}"


class PluginRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One installed plugin.

    Args:
        kind: `backends`, `skills`, `apis` or `executors`.
        name: The entry point's name, which configuration uses.
        distribution: The package that brings it; empty for one that is configured but not installed.
        version: The version of that package.
        file: The module's file, found without importing it.
        module: The module that the entry point names.
        state: `enabled`, `disabled` or `failed`.
        reason: Why it is not enabled, as a sentence a person can act on.
        contract: The `MODELPORT_CONTRACT` it states; empty if it was not imported.
    """

    kind: Kind
    name: str
    distribution: str = ""
    version: str = ""
    file: str = ""
    module: str = ""
    state: Literal["enabled", "disabled", "failed"] = "enabled"
    reason: str = ""
    contract: str = ""

    @property
    def owner(self) -> str:
        """The distribution and its version, for messages that name two."""
        return f"{self.distribution} {self.version}".strip() or self.module

    def describe(self) -> dict[str, Any]:
        """The record as plain data."""
        return msgspec.structs.asdict(self)
