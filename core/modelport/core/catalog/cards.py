"""Model cards: what a checkpoint's small files say of it. Nothing is loaded, nothing is run."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelport.contract.card import ModelCard
from modelport.contract.errors import ConfigurationError
from modelport.core.catalog.files import CONVERT_HINT, SAFETENSORS_INDEX, other_weights, pickles, safetensors_weights
from modelport.core.catalog.safetensors import Header, read_header
from modelport.core.config.settings import ModelSettings

__all__ = ["card_for_skill", "card_from_folder", "folder_signature", "needs_remote_code"]

_LENGTH_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length", "model_max_length")
_NESTED_KEYS = ("text_config", "llm_config", "language_config", "decoder")
_SANE_LENGTH = 100_000_000
"""tokenizer_config.json says 1e30 where it means that there is no limit."""


def card_for_skill(name: str, model: ModelSettings) -> ModelCard:
    """The card of a model that is a skill and nothing else (`source = "skill:shout"`)."""
    return ModelCard(name=name, source=model.source, options=model.options, max_length=model.max_length)


def card_from_folder(name: str, folder: Path, model: ModelSettings) -> ModelCard:
    """The card of the checkpoint in `folder`.

    A model whose configuration names its skill may lie in any folder: what is in there is then that skill's concern.

    Raises:
        ConfigurationError: there is no checkpoint in there, or one that is broken or unsafe to read.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"The folder {folder} of the model {name!r} does not exist. Correct its source, or give a Hub id (org/model)."
        )
    files = {file: size for file, size, _ in _walk(folder)}
    common: dict[str, Any] = {
        "name": name,
        "source": model.source,
        "path": str(folder),
        "revision": _commit(folder) or folder_signature(folder),
        "files": tuple(sorted(files)),
        "trust_remote_code": model.trust_remote_code,
        "max_length": model.max_length,
        "options": model.options,
    }
    if "config.json" not in files:
        if model.skill is not None:
            return ModelCard(**common)
        raise ConfigurationError(
            f"{folder} holds no config.json, so it is not a Hugging Face checkpoint. Give the model {name!r} the folder that "
            "holds config.json as its source, or name the skill that can read this one."
        )
    config = _read_json(folder / "config.json")
    weights = _weights(name, folder, files)
    readme = _front_matter(folder / "README.md")
    tokenizer = _read_json(folder / "tokenizer_config.json", missing_ok=True)
    quantization = _quantization(config)
    parameters = sum(header.packed if quantization else header.parameters for header in weights.values())
    return ModelCard(
        **common,
        model_type=str(config.get("model_type") or ""),
        architectures=tuple(config.get("architectures") or ()),
        tasks=_tasks(readme, files),
        parameters=parameters,
        weight_bytes=sum(files[file] for file in (weights or other_weights(files))),
        dtype=_dtype(config, weights),
        context_length=_context_length(config, tokenizer, _read_json(folder / "sentence_bert_config.json", missing_ok=True)),
        quantization=quantization,
        has_chat_template=_has_chat_template(tokenizer, files),
        license=readme.get("license_name", "") if readme.get("license") == "other" else readme.get("license", ""),
        config=config,
    )


def folder_signature(folder: Path) -> str:
    """A digest of the names, sizes and times of a folder's files: equal as long as nobody touched it."""
    digest = hashlib.sha256()
    for file, size, modified in sorted(_walk(folder)):
        digest.update(f"{file}\0{size}\0{modified}\n".encode())
    return digest.hexdigest()[:16]


def _walk(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of every file that is not hidden. Links to files count as files: Hub snapshots consist of them."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith(".") and each != "__pycache__")
        for each in names:
            if each.startswith("."):
                continue
            path = Path(root, each)
            try:
                stat = path.stat()
            except OSError:
                continue
            yield path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns


def _commit(folder: Path) -> str:
    """The commit of a snapshot in the Hub's cache, which is its folder's name."""
    is_commit = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if is_commit else ""


def _read_json(path: Path, missing_ok: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise
    except ValueError as error:
        raise ConfigurationError(f"{path} is not JSON: {error}. Fetch the checkpoint again, or mend the file.") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path} holds no JSON object. Fetch the checkpoint again, or mend the file.")
    return value


def _weights(name: str, folder: Path, files: Mapping[str, int]) -> dict[str, Header]:
    """The headers of the model's safetensors files; empty if its weights are ONNX, GGUF or OpenVINO IR."""
    if SAFETENSORS_INDEX in files:
        index = _read_json(folder / SAFETENSORS_INDEX).get("weight_map") or {}
        shards = sorted(set(index.values()))
        missing = [shard for shard in shards if shard not in files]
        if missing:
            raise ConfigurationError(
                f"{folder} lacks {len(missing)} of the {len(shards)} weight files that {SAFETENSORS_INDEX} names "
                f"({missing[0]}{', …' if len(missing) > 1 else ''}). Fetch the checkpoint again."
            )
    else:
        shards = safetensors_weights(files)
    headers = {shard: read_header(folder / shard) for shard in shards}
    for extra in files:
        # sentence-transformers keeps its dense layers in folders of their own.
        if "/" in extra and extra.endswith("/model.safetensors"):
            read_header(folder / extra)
    if headers or other_weights(files):
        return headers
    unsafe = pickles(files)
    if unsafe:
        raise ConfigurationError(f"The weights in {folder} are pickle only ({', '.join(unsafe[:3])}). {CONVERT_HINT}.")
    raise ConfigurationError(
        f"{folder} holds config.json and no weights. Fetch the whole checkpoint; modelport reads safetensors (model.safetensors)."
    )


def _front_matter(readme: Path) -> dict[str, str]:
    """Plain `key: value` lines of the YAML block that heads a model card's README."""
    try:
        with readme.open(encoding="utf-8", errors="replace") as file:
            text = file.read(65_536)
    except OSError:
        return {}
    match = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    lines = re.findall(r"^(\w+):[ \t]*['\"]?([^\s'\"#][^'\"#\n]*?)['\"]?[ \t]*(?:#.*)?$", match[1], re.MULTILINE) if match else []
    return dict(lines)


def _tasks(readme: Mapping[str, str], files: Mapping[str, int]) -> tuple[str, ...]:
    tag = readme.get("pipeline_tag", "")
    # A sentence-transformers checkpoint is there to embed, whatever its card calls that.
    tasks = [tag] if tag else []
    if "modules.json" in files and "feature-extraction" not in tasks:
        tasks.append("feature-extraction")
    return tuple(tasks)


def _dtype(config: Mapping[str, Any], weights: Mapping[str, Header]) -> str:
    for table in (config, *_nested(config)):
        stated = table.get("dtype") or table.get("torch_dtype")
        if isinstance(stated, str) and stated != "auto":
            return stated.removeprefix("torch.")
    counts: dict[str, int] = {}
    for header in weights.values():
        if header.dtype:
            counts[header.dtype] = counts.get(header.dtype, 0) + header.parameters
    return max(counts, key=lambda dtype: counts[dtype]) if counts else "float32"


def _nested(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [config[key] for key in _NESTED_KEYS if isinstance(config.get(key), dict)]


def _context_length(config: Mapping[str, Any], tokenizer: Mapping[str, Any], sentence: Mapping[str, Any]) -> int | None:
    """The smallest limit that any of the files states: positions, the tokenizer's own, sentence-transformers' own."""
    tables = (config, *_nested(config))
    stated = (_sane(table.get(key), table.get("pad_token_id")) for table in tables for key in _LENGTH_KEYS)
    positions = next((length for length in stated if length is not None), None)
    limits = (positions, _sane(tokenizer.get("model_max_length")), _sane(sentence.get("max_seq_length")))
    return min((limit for limit in limits if limit is not None), default=None)


def _sane(value: Any, pad: Any = None) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _SANE_LENGTH:
        return None
    length = int(value)
    # Where positions are counted from the padding index on, the table has pad + 1 rows that no token can use, and what is left
    # is a power of two: 514 rows with padding 1 are 512 tokens.
    usable = length - pad - 1 if isinstance(pad, int) and not isinstance(pad, bool) and pad > 0 else length
    return usable if usable >= 64 and usable & (usable - 1) == 0 else length


def _quantization(config: Mapping[str, Any]) -> str:
    for table in (config, *_nested(config)):
        found = table.get("quantization_config") or table.get("compression_config")
        if isinstance(found, dict):
            return str(found.get("quant_method") or "unknown")
    return ""


def _has_chat_template(tokenizer: Mapping[str, Any], files: Mapping[str, int]) -> bool:
    return bool(tokenizer.get("chat_template")) or any(
        file in ("chat_template.jinja", "chat_template.json") or file.startswith("additional_chat_templates/") for file in files
    )


def needs_remote_code(card: ModelCard) -> bool:
    """Whether the checkpoint brings code of its own that transformers would run."""
    return bool(card.config.get("auto_map"))
