"""How a checkpoint's token states become one vector: sentence-transformers' files, read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from modelport.contract import ConfigurationError, Dense, ModelCard, Normalize, Pool, Splade
from modelport.contract.program import Step
from modelport_hf.folder import read_json
from modelport_hf.heads import head_of

__all__ = ["Recipe", "is_sparse", "recipe_of"]

_POOLING = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last", "last": "last"}
_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_ACTIVATIONS = {"Identity": "identity", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu"}


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """What follows the encoder.

    Args:
        chain: Pooling and dense layers, without a final normalisation: that is the request's to choose.
        normalize: Whether the checkpoint normalises in the end.
        max_length: The most tokens, from sentence_bert_config.json.
        lowercase: Whether texts are put in lower case first.
        prompts: Texts to put before an input, by name.
        default_prompt: The prompt's name when a request names none.
        pools_prompt: Whether the prompt's tokens are pooled with the others.
    """

    chain: tuple[Step, ...]
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    pools_prompt: bool = True


def is_sparse(card: ModelCard) -> bool:
    """Whether a checkpoint's files say that it embeds into the vocabulary."""
    if not card.path or "modules.json" not in card.files:
        return False
    try:
        modules = read_json(Path(card.path), "modules.json") or []
    except ConfigurationError:
        return False  # the program will say what is wrong with the file
    return any(_kind(module) == "SpladePooling" for module in modules)


def recipe_of(card: ModelCard, *, sparse: bool = False) -> Recipe:
    """Reads the recipe of a checkpoint; `options.pooling` and `options.normalize` of its configuration win.

    `sparse` asks for the recipe into the vocabulary, which a checkpoint with a head for masked words has even if no file says so.

    Raises:
        ConfigurationError: if the checkpoint asks for a step that does not exist here; the message names it.
    """
    folder = Path(card.path)
    modules: list[dict[str, Any]] = (read_json(folder, "modules.json") or []) if card.path else []
    plain: Step = Splade() if sparse else Pool("last" if head_of(card.architectures) == "causal-lm" else "mean")
    fields: dict[str, Any] = {"chain": (plain,)}
    if modules:
        fields |= _from_sparse_modules(card, folder, modules) if sparse else _from_modules(card, folder, modules)
        bert = read_json(folder, "sentence_bert_config.json") or {}
        fields |= {"max_length": bert.get("max_seq_length"), "lowercase": bool(bert.get("do_lower_case", False))}
        prompts = read_json(folder, "config_sentence_transformers.json") or {}
        named = {name: text for name, text in (prompts.get("prompts") or {}).items() if isinstance(text, str)}
        fields |= {"prompts": named, "default_prompt": prompts.get("default_prompt_name")}
    if (pooling := card.options.get("pooling")) is not None and not sparse:
        if pooling not in _POOLING:
            raise ConfigurationError(
                f"models.{card.name}.options.pooling is {pooling!r}; it can be {', '.join(sorted(set(_POOLING)))}.",
                param=f"models.{card.name}.options.pooling",
            )
        fields["chain"] = tuple(Pool(_POOLING[pooling]) if isinstance(step, Pool) else step for step in fields["chain"])  # type: ignore[arg-type]
    if (normalize := card.options.get("normalize")) is not None:
        fields["normalize"] = bool(normalize)
    return Recipe(**fields)


def _from_modules(card: ModelCard, folder: Path, modules: list[dict[str, Any]]) -> dict[str, Any]:
    chain: list[Step] = []
    pools_prompt = True
    for kind, path in _steps(modules):
        if kind == "Transformer":
            if path:
                raise _unsupported(card, f"keeps its transformer in the folder {path!r}", "move those files to the top folder")
        elif kind == "Pooling":
            config = read_json(folder, f"{path}/config.json") or {}
            chain.append(Pool(_pooling(card, config)))
            pools_prompt = bool(config.get("include_prompt", True))
        elif kind == "Dense":
            chain.append(_dense(card, folder, path))
        elif kind == "Normalize":
            chain.append(Normalize())
        elif kind != "Dropout":
            raise _unsupported(card, f"has a step {kind!r}", "only Transformer, Pooling, Dense and Normalize are known")
    if not any(isinstance(step, Pool) for step in chain):
        raise _unsupported(card, "has no Pooling step in its modules.json", 'name one in its options: pooling = "mean"')
    normalize = isinstance(chain[-1], Normalize)
    return {"chain": tuple(chain[:-1] if normalize else chain), "normalize": normalize, "pools_prompt": pools_prompt}


def _from_sparse_modules(card: ModelCard, folder: Path, modules: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = [kind for kind, _ in _steps(modules)]
    if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        raise _unsupported(card, f"has the steps {', '.join(kinds)}", "sparse models are a Transformer and a SpladePooling")
    (_, top), (_, path) = _steps(modules)
    if top:
        raise _unsupported(card, f"keeps its transformer in the folder {top!r}", "move those files to the top folder")
    config = read_json(folder, f"{path}/config.json") or {}
    mode, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if mode not in ("max", "sum") or activation not in ("relu", "log1p_relu"):
        raise _unsupported(card, f"pools by {mode} of {activation}", "max and sum of relu and log1p_relu are served")
    return {"chain": (Splade(mode=mode, activation=activation),)}


def _steps(modules: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(kind, folder) of each step, in their order."""
    ordered = sorted(modules, key=lambda module: int(module.get("idx", 0)))
    return [(_kind(module), str(module.get("path", ""))) for module in ordered]


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type", "")).rsplit(".", 1)[-1]


def _pooling(card: ModelCard, config: dict[str, Any]) -> Any:
    chosen = [mode for flag, mode in _FLAGS.items() if config.get(flag)]
    if isinstance(named := config.get("pooling_mode"), str):
        chosen = [named]
    elif isinstance(named, list):
        chosen = [str(mode) for mode in named]
    if len(chosen) != 1 or chosen[0] not in _POOLING:
        if card.options.get("pooling") in _POOLING:
            return _POOLING[card.options["pooling"]]
        said = " and ".join(chosen) or "none"
        raise _unsupported(card, f"pools by {said}", "one of mean, cls, max and lasttoken is served; options.pooling chooses")
    return _POOLING[chosen[0]]


def _dense(card: ModelCard, folder: Path, path: str) -> Dense:
    config = read_json(folder, f"{path}/config.json") or {}
    activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS:
        raise _unsupported(card, f"has a dense layer with {activation}", f"known are {', '.join(_ACTIVATIONS)}")
    file = f"{path}/model.safetensors"
    if not (folder / file).is_file():
        raise _unsupported(card, f"has no {file}", "weights in pickle files are not loaded; convert them to safetensors")
    return Dense(file, _ACTIVATIONS[activation])  # type: ignore[arg-type]


def _unsupported(card: ModelCard, what: str, advice: str) -> ConfigurationError:
    return ConfigurationError(f"Model {card.name!r} {what}, so it cannot be served as an embedding model: {advice}.")
