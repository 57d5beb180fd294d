"""What is known of a checkpoint without loading it."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["ModelCard"]


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as its config.json and its file list describe it. Nothing here needed torch or weights in memory.

    Args:
        name: The name it is served under (`smollm2`, `org/model`).
        source: What the configuration named: a Hub id, a folder or a family.
        path: The local folder. Empty until the checkpoint is on disk.
        revision: The commit on the Hub, or a digest of the files.
        model_type: From config.json; empty when there is none (a skill without a program).
        architectures: From config.json.
        tasks: Pipeline tags, the best guess first.
        parameters: Number of weights; 0 if unknown.
        weight_bytes: Size of the weight files on disk.
        dtype: The checkpoint's own type (`float32`, `bfloat16`, …).
        context_length: The most tokens it takes; `None` if unbounded or unknown.
        files: Relative names of all files, sorted.
        quantization: From config.json (`awq`, `gptq`, …), or empty.
        has_chat_template: Whether the tokenizer files hold one.
        license: From the model card's front matter, or empty.
        trust_remote_code: Whether the configuration allows the checkpoint's own code.
        config: config.json itself, for skills that read more of it.
        max_length: A limit set in the configuration, below `context_length`.
        options: Free settings of the model's configuration table, for its skill.
    """

    name: str
    source: str = ""
    path: str = ""
    revision: str = ""
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    parameters: int = 0
    weight_bytes: int = 0
    dtype: str = "float32"
    context_length: int | None = None
    files: tuple[str, ...] = ()
    quantization: str = ""
    has_chat_template: bool = False
    license: str = ""
    trust_remote_code: bool = False
    config: dict[str, Any] = {}
    max_length: int | None = None
    options: dict[str, Any] = {}

    @property
    def limit(self) -> int | None:
        """The most tokens to accept: the smaller of `max_length` and `context_length`."""
        known = [n for n in (self.max_length, self.context_length) if n is not None]
        return min(known) if known else None
