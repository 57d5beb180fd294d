"""A checkpoint's tokenizer, without torch, and without transformers wherever there is a tokenizer.json.

The ids are those of transformers for the same folder: tokens that tokenizer_config.json adds are added, what it says of lower
case is followed, and the padding and truncation that some tokenizer.json files carry are taken off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from tokenizers import AddedToken, Encoding, processors
from tokenizers import Tokenizer as Backend

from modelport.contract.errors import ConfigurationError, InvalidRequest
from modelport_hf.folder import read_json
from modelport_hf.tokens import TokenTable

__all__ = ["Encoded", "Tokenizer", "load_tokenizer"]

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_UNBOUNDED = 10**9
"""From here on a limit is none: transformers writes 10**30 for a tokenizer without one."""

Side = Literal["left", "right"]


class Encoded(msgspec.Struct, frozen=True):
    """Token ids of one text or pair, and which of the two each belongs to."""

    ids: list[int]
    type_ids: list[int]

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Text to ids and back. Its methods may be called from several threads at once.

    Attributes:
        special: Named special tokens (`bos_token`, …) that are set, as the chat template sees them.
        model_max_length: The most tokens that tokenizer_config.json allows, or None.
        input_names: Names of the model's inputs, if tokenizer_config.json lists them.
    """

    def __init__(self, backend: Backend, config: dict[str, Any], special: dict[str, str]) -> None:
        self.backend = backend
        self.special = special
        limit = config.get("model_max_length")
        self.model_max_length: int | None = int(limit) if isinstance(limit, int | float) and 0 < limit < _UNBOUNDED else None
        names = config.get("model_input_names")
        self.input_names: tuple[str, ...] | None = tuple(names) if isinstance(names, list) else None
        self.table = TokenTable(backend)
        self.size: int = self.table.size

    def id_of(self, name: str) -> int | None:
        """The id of a named special token (`pad_token`), or None if the checkpoint has none."""
        token = self.special.get(name)
        return None if token is None else self.backend.token_to_id(token)

    def encode(
        self,
        text: str,
        pair: str | None = None,
        *,
        special: bool = True,
        max_tokens: int | None = None,
        side: Side = "right",
        max_pair_tokens: int | None = None,
    ) -> Encoded:
        """Ids of a text, or of a pair of texts.

        Args:
            text: The text.
            pair: The second text of a pair.
            special: Whether to add the tokens that the model expects around a text.
            max_tokens: Cut to so many tokens, special ones included and kept. Of a pair the longer text is cut, token by token.
            side: Which end is cut.
            max_pair_tokens: Cut the second text to so many tokens first.
        """
        if max_tokens is None and max_pair_tokens is None:
            encoding = self.backend.encode(text, pair, add_special_tokens=special)
            return Encoded(encoding.ids, encoding.type_ids)
        first = self.backend.encode(text, add_special_tokens=False)
        second = None if pair is None else self.backend.encode(pair, add_special_tokens=False)
        if second is not None and max_pair_tokens is not None:
            second.truncate(max_pair_tokens, direction="right")
        if max_tokens is not None:
            room = max(max_tokens - (self.backend.num_special_tokens_to_add(pair is not None) if special else 0), 0)
            keep, keep_pair = _longest_first(len(first.ids), 0 if second is None else len(second.ids), room)
            first.truncate(keep, direction=side)
            if second is not None:
                second.truncate(keep_pair, direction=side)
        encoding = self.backend.post_process(first, second, add_special_tokens=special)
        return Encoded(encoding.ids, encoding.type_ids)

    def windows(
        self,
        text: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        *,
        max_tokens: int | None = None,
        stride: int = 0,
    ) -> list[Encoding]:
        """The library's own encodings, with offsets and words, of a text or pair, special tokens included.

        Args:
            text: The text, or its words.
            pair: The second text of a pair, or its words; then it is this one that is cut into windows.
            max_tokens: Most tokens of each encoding; without it there is one, of any length. If the parts that are in every
                window leave no room, there are none.
            stride: How many tokens consecutive windows share.
        """
        first = self._bare(text)
        second = None if pair is None else self._bare(pair)
        cut = first if second is None else second
        if max_tokens is not None:
            fixed = self.backend.num_special_tokens_to_add(second is not None) + (len(first.ids) if second is not None else 0)
            if max_tokens <= fixed:
                return []
            cut.truncate(max_tokens - fixed, stride=min(stride, max_tokens - fixed - 1))
        parts = [cut, *cut.overflowing]
        if second is None:
            return [self.backend.post_process(part, add_special_tokens=True) for part in parts]
        return [self.backend.post_process(first, part, add_special_tokens=True) for part in parts]

    def _bare(self, text: str | Sequence[str]) -> Encoding:
        """The encoding of a text, or of words, without special tokens."""
        words = not isinstance(text, str)
        return self.backend.encode(list(text) if words else text, is_pretokenized=words, add_special_tokens=False)

    def spell(self, tokens: Sequence[str]) -> str:
        """The text of tokens that are given by their spelling in the vocabulary."""
        decoder = self.backend.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[Encoded]:
        """Ids of several texts, in order."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=special)
        return [Encoded(encoding.ids, encoding.type_ids) for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids. Bytes that are not UTF-8 become U+FFFD."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Checks ids that came from a caller.

        Raises:
            InvalidRequest: if there are none, or one is outside the vocabulary.
        """
        if not ids:
            raise InvalidRequest("The list of token ids is empty; give at least one.", param=param)
        low, high = min(ids), max(ids)
        if low < 0 or high >= self.size:
            bad = low if low < 0 else high
            raise InvalidRequest(
                f"Token id {bad} is outside the model's vocabulary; ids run from 0 to {self.size - 1}.",
                param=f"{param}.{ids.index(bad)}",
            )


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Tokenizer:
    """The tokenizer of a checkpoint's folder.

    Without a tokenizer.json, transformers converts what there is (vocab.txt, SentencePiece, tiktoken), in this process.

    Raises:
        ConfigurationError: if there is no tokenizer, or it cannot be read.
    """
    # Texts are tokenised on the worker's own pool; a second pool inside the library would fight it for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    config: dict[str, Any] = read_json(folder, "tokenizer_config.json") or {}
    if not (folder / "tokenizer.json").is_file():
        return _converted(folder, config, trust_remote_code)
    try:
        backend = Backend.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises plain Exception
        raise ConfigurationError(
            f"{folder / 'tokenizer.json'} cannot be read ({error}). It is damaged or needs a newer `tokenizers`: fetch the"
            " checkpoint again, or upgrade the library."
        ) from error
    special = _special_tokens(folder, config)
    if backend.padding and "pad_token" not in special:
        special["pad_token"] = str(backend.padding["pad_token"])
    backend.no_padding()
    backend.no_truncation()
    _follow_case(backend, config)
    _add_tokens(backend, config, special)
    backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
    if backend.post_processor is None:
        backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    return Tokenizer(backend, config, special)


def _converted(folder: Path, config: dict[str, Any], trust_remote_code: bool) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # anything a damaged or foreign folder can cause
        cause = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ConfigurationError(
            f"The checkpoint in {folder} has no tokenizer that can be loaded ({type(error).__name__}: {cause.strip()}). Add a"
            " tokenizer.json to it: AutoTokenizer.from_pretrained(…).save_pretrained(…) writes one."
        ) from error
    backend = getattr(slow, "backend_tokenizer", None)
    if not isinstance(backend, Backend):
        raise ConfigurationError(
            f"The tokenizer of {folder} ({type(slow).__name__}) exists in Python only and cannot be converted to a"
            " tokenizer.json, which this skill needs. Use a checkpoint of this model that has one."
        )
    backend.no_padding()
    backend.no_truncation()
    special = {name: str(token) for name in _NAMED if (token := getattr(slow, name, None)) is not None}
    limit = min(int(slow.model_max_length), _UNBOUNDED)
    return Tokenizer(backend, {**config, "model_max_length": limit, "model_input_names": list(slow.model_input_names)}, special)


def _special_tokens(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Named special tokens; special_tokens_map.json counts only where the configuration is of the old kind."""
    sources: dict[str, Any] = dict(config)
    if "added_tokens_decoder" not in config:
        sources |= read_json(folder, "special_tokens_map.json") or {}
    others = sorted(name for name in sources if name.endswith("_token") and name not in _NAMED)
    return {name: token for name in (*_NAMED, *others) if (token := _content(sources.get(name)))}


def _content(token: Any) -> str | None:
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) and token else None


def _follow_case(backend: Backend, config: dict[str, Any]) -> None:
    """BERT's normaliser takes its switches from tokenizer_config.json where that has them."""
    normalizer = backend.normalizer
    if type(normalizer).__name__ != "BertNormalizer":
        return
    for key, attribute in (
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ):
        if key in config:
            setattr(normalizer, attribute, config[key])
    backend.normalizer = normalizer


def _add_tokens(backend: Backend, config: dict[str, Any], special: dict[str, str]) -> None:
    """Adds what tokenizer_config.json names and tokenizer.json lacks, in the order of ids, then named special tokens."""
    present = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    wanted: list[AddedToken] = []
    named = set(special.values())
    for _, entry in sorted((config.get("added_tokens_decoder") or {}).items(), key=lambda pair: int(pair[0])):
        token = AddedToken(**entry)
        if repr(token) not in present:
            token.special = token.special or token.content in named
            wanted.append(token)
    known = {token.content for token in backend.get_added_tokens_decoder().values()} | {token.content for token in wanted}
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or ()
    for content in [*special.values(), *(_content(token) for token in (extra.values() if isinstance(extra, dict) else extra))]:
        if content and content not in known:
            wanted.append(AddedToken(content, special=True, normalized=False))
            known.add(content)
    if wanted:
        backend.add_tokens(wanted)


def _longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts to keep so that both fit: the longer one gives way until they are equal, then both do, and an
    odd token left over goes to the one that was longer."""
    if first + second <= room:
        return first, second
    short = min(first, second)
    if short <= room - short:
        kept, rest = short, room - short
    else:
        kept, rest = room // 2, room - room // 2
    return (kept, rest) if first <= second else (rest, kept)
