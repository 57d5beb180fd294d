"""Voices and languages of a checkpoint, by name, as arrays for its model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelport.contract import Array, ConfigurationError, InvalidRequest, SessionContext
from modelport_hf.folder import read_json

__all__ = ["Languages", "Voices"]

_SPEAKERS = {"vits": "num_speakers", "seamless_m4t": "vocoder_num_spkrs", "seamless_m4t_v2": "vocoder_num_spkrs"}
_BARK_PROMPTS = {"semantic_prompt": 1, "coarse_prompt": 2, "fine_prompt": 2}
_ROLES = 10
"""Speakers of a model that takes any number for one."""


class Voices:
    """A voice is the number of a speaker, an embedding of how somebody sounds, or prompts of one who speaks already.

    Embeddings are files NAME.npy in the checkpoint's folder `voices`. The option `voices` maps further names to the
    checkpoint's own, or to files: `voices = { alloy = "3", ash = "/data/ash.npy" }`. `config` is the model's, defaults included.

    Raises:
        ConfigurationError: if a file or the option cannot be read.
    """

    def __init__(self, context: SessionContext, config: Mapping[str, Any]) -> None:
        card = context.card
        own = _acoustic(config)
        self._width = own.get("speaker_embedding_dim" if card.model_type == "speecht5" else "speaker_embed_dim")
        self._needs_one = card.model_type == "speecht5"
        self._all: dict[str, Callable[[], dict[str, Array]]] = {}
        if self._width:
            for file in sorted((context.folder / "voices").glob("*.npy")):
                self._all[file.stem] = _fixed(self._embedding(file))
        count = own.get(_SPEAKERS.get(card.model_type, "num_speakers")) or 0
        for number in range(_ROLES if card.model_type == "csm" else count if count > 1 else 0):
            self._all[str(number)] = _fixed({} if card.model_type == "csm" else {"speaker": np.array(number)})
        if card.model_type == "bark":
            self._all |= _presets(context.folder)
        self._default = next(iter(self._all), None) if card.model_type != "bark" else None
        self._own_names: dict[str, str] = {}
        self._name(card.name, card.options.get("voices", {}))

    def voice(self, name: str | None) -> tuple[str, dict[str, Array]]:
        """The checkpoint's own name of a voice, or nothing if there is only one, and what its model takes for it.

        Raises:
            InvalidRequest: if there is no such voice, with those that there are; or one is needed and there is none.
        """
        if name is None or (name == "default" and name not in self._all):
            if self._default is None and self._needs_one:
                raise InvalidRequest(
                    "This model speaks with a voice that it is given, and there is none. Put embeddings of speakers, NAME.npy, "
                    "into the folder 'voices' of the checkpoint, or name files in the model's option 'voices'.",
                    param="voice",
                )
            name = self._default
        if name is None:
            return "", {}
        if name not in self._all:
            known = ["default", *self._all]
            near = difflib.get_close_matches(name, known, 3, 0.5) or known[:8]
            raise InvalidRequest(
                f"voice is {name!r}, which this model does not have. Voices that it has: {', '.join(near)}"
                f"{', …' if len(near) < len(known) else ''}.",
                param="voice",
            )
        return self._own_names.get(name, name), self._all[name]()

    def _name(self, model: str, names: Any) -> None:
        """Adds the voices of the option."""
        param = f"models.{model}.options.voices"
        if not isinstance(names, Mapping) or not all(isinstance(value, str) for value in names.values()):
            raise ConfigurationError(f"{param} is {names!r}; it must map names to voices, or to files.", param=param)
        for name, value in names.items():
            if value in self._all:
                self._all[name] = self._all[value]
                self._own_names[name] = str(self._own_names.get(value, value))
            elif value == "default":
                self._all[name] = self._all[self._default] if self._default else _fixed({})
                self._own_names[name] = self._default or ""
            elif self._width and value.endswith(".npy"):
                self._all[name] = _fixed(self._embedding(Path(value)))
                self._default = self._default or name
            else:
                known = ", ".join([*self._all, "default"][:8])
                raise ConfigurationError(f"{param}.{name} is {value!r}, which is no voice of the model's ({known}).", param=param)

    def _embedding(self, file: Path) -> dict[str, Array]:
        values = _array(file, np.float32).reshape(-1)
        if len(values) != self._width:
            raise ConfigurationError(f"The voice {file} has {len(values)} numbers, and the model takes {self._width}.")
        return {"speaker_embedding": values}


class Languages:
    """Of one checkpoint: one that its tokenizer knows of, several to choose from, or none that it would tell.

    Raises:
        ConfigurationError: if the checkpoint's files cannot be read.
    """

    def __init__(self, context: SessionContext, config: Mapping[str, Any], tokenizer: Any) -> None:
        config = _acoustic(config)
        own = read_json(context.folder, "generation_config.json") or {}
        spoken = own.get("vocoder_lang_code_to_id")
        if spoken:
            self._codes: dict[str, int | None] = {name: at for at, name in enumerate(sorted(spoken))}
        elif (config.get("num_languages") or 0) > 1:
            self._codes = {str(number): number for number in range(config["num_languages"])}
        elif language := getattr(tokenizer, "language", None):
            self._codes = {str(language): None}
        else:
            self._codes = {}

    def language(self, name: str | None) -> tuple[str | None, dict[str, Array]]:
        """The language in the checkpoint's writing, and what the model takes for it.

        Raises:
            InvalidRequest: if it is missing or unknown, with those that there are.
        """
        if name is None:
            if len(self._codes) > 1:
                raise InvalidRequest(f"language is missing: this model speaks several, {self._some()}.", param="language")
            name = next(iter(self._codes), None)
        elif not self._codes:
            raise InvalidRequest(
                f"language is {name!r}, and this model has no choice of languages. Leave it out.", param="language"
            )
        if name is None:
            return None, {}
        if name not in self._codes:
            near = difflib.get_close_matches(name, self._codes, 3, 0.5)
            raise InvalidRequest(
                f"language is {name!r}, which this model does not speak. It speaks {self._some(near)}.", param="language"
            )
        code = self._codes[name]
        return name, {} if code is None else {"language": np.array(code)}

    def _some(self, near: Iterable[str] = ()) -> str:
        names = list(near) or list(self._codes)
        return ", ".join(names[:8]) + (", …" if len(self._codes) > len(names[:8]) else "")


def _acoustic(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the model beside a vocoder of its own."""
    inner = config.get("model_config")
    return inner if isinstance(inner, Mapping) else config


def _fixed(arrays: dict[str, Array]) -> Callable[[], dict[str, Array]]:
    return lambda: dict(arrays)


def _presets(folder: Path) -> dict[str, Callable[[], dict[str, Array]]]:
    """Prompts by the names that speaker_embeddings_path.json gives them, if all three are here; read when they are asked for."""

    def reader(files: Mapping[str, Path]) -> Callable[[], dict[str, Array]]:
        def read() -> dict[str, Array]:
            found: dict[str, Array] = {name: _array(file, np.int64) for name, file in files.items()}
            for name, dimensions in _BARK_PROMPTS.items():
                if len(found[name].shape) != dimensions:
                    raise ConfigurationError(
                        f"The voice {files[name]} has {len(found[name].shape)} axes instead of {dimensions}."
                    )
            return found

        return read

    presets: dict[str, Callable[[], dict[str, Array]]] = {}
    for name, listed in (read_json(folder, "speaker_embeddings_path.json") or {}).items():
        named = listed if isinstance(listed, Mapping) else {}
        inside = {prompt: Path(str(named[prompt])) for prompt in _BARK_PROMPTS if prompt in named}
        files = {prompt: folder / file for prompt, file in inside.items() if not file.is_absolute() and ".." not in file.parts}
        if len(files) == len(_BARK_PROMPTS) and all(file.exists() for file in files.values()):
            presets[name] = reader(files)
    return presets


def _array(file: Path, dtype: Any) -> np.ndarray:
    try:
        return np.asarray(np.load(file, allow_pickle=False)).astype(dtype)
    except (OSError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise ConfigurationError(f"The voice {file} cannot be read as an array of numbers: {why}.") from error
