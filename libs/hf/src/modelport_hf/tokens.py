"""The bytes of each token, and which tokens are special: what detokenising a step of many streams needs, read once."""

from __future__ import annotations

import json
import re
from typing import Any

from tokenizers import Tokenizer as Backend

__all__ = ["TokenTable"]

_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


class TokenTable:
    """Bytes by token id, made when first asked for.

    Attributes:
        size: One more than the largest id.
        special: Ids of special tokens.
        bytewise: Whether a text's bytes are those of its tokens one after another (byte-level vocabularies), so that no
            decoder is needed to detokenise.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self.special = frozenset(index for index, token in added.items() if token.special)
        self._contents = {index: token.content for index, token in added.items()}
        self.size = max(backend.get_vocab_size(with_added_tokens=True), max(added, default=-1) + 1)
        # The state of a decoder is its JSON; the tokenizer's own JSON would hold the whole vocabulary too.
        steps = _decoder_steps(None if backend.decoder is None else json.loads(backend.decoder.__getstate__()))
        self._kinds = frozenset(step["type"] for step in steps)
        self._joiner = next((str(step.get("prefix", "##")) for step in steps if step["type"] == "WordPiece"), "")
        self.bytewise = "ByteLevel" in self._kinds
        self._bytes: dict[int, bytes] = {}

    def __getitem__(self, id: int) -> bytes:
        """The bytes of a token as they appear in the middle of a text; they may be part of a character. Unknown ids have none."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._read(id)
        return known

    def id_of(self, content: str) -> int | None:
        """The id of the token that is exactly `content`, or None."""
        found: int | None = self._backend.token_to_id(content)
        return found

    def _read(self, id: int) -> bytes:
        if id in self._contents:
            content = self._contents[id]
            return _from_byte_level(content) if self.bytewise else content.encode()
        token = self._backend.id_to_token(id)
        return b"" if token is None else self._bytes_of(str(token))

    def _bytes_of(self, token: str) -> bytes:
        if self.bytewise:
            return _from_byte_level(token)
        if "ByteFallback" in self._kinds and (match := _FALLBACK.match(token)):
            return bytes([int(match[1], 16)])
        if self._joiner:
            return (token.removeprefix(self._joiner) if token.startswith(self._joiner) else " " + token).encode()
        if self._kinds & {"Metaspace", "Replace"}:
            token = token.replace("\u2581", " ")
        return token.encode()


def _decoder_steps(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    return list(decoder["decoders"]) if decoder["type"] == "Sequence" else [decoder]


def _byte_alphabet() -> dict[str, int]:
    """The printable character by which byte-level vocabularies write each byte, reversed: printable Latin-1 stands for
    itself, the others for the code points from 256 on, in order."""
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(itself)]
    return {chr(byte): byte for byte in itself} | {chr(256 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _from_byte_level(token: str) -> bytes:
    try:
        return bytes([_ALPHABET[char] for char in token])
    except KeyError:  # an added token that is written as plain text
        return token.encode()
