"""A tiny checkpoint of a pair, from its configuration's class alone, in which every weight, bias and norm is random."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pairs import HERE, Pair
from shrink import tiny_config

MOST_PARAMETERS = 12_000_000
"""A model that is larger even when shrunk is not built: the sweep would take all day."""

OVERRIDES: dict[str, dict[str, Any]] = tomllib.loads((HERE / "overrides.toml").read_text(encoding="utf-8"))


class CannotBuild(Exception):
    """Why there is no tiny model of a pair."""


def changes_of(pair: Pair, more: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says of the type, then of the pair, over what its task asks for."""
    made = dict(more)
    for told in told_of(pair):
        made |= {key: value for key, value in told.items() if not key.startswith("_")}
    return made


def note_of(pair: Pair, name: str) -> Any:
    """What the table notes of a pair or type beside its configuration (`_class`, `_processor`, …), or None."""
    return next((told[name] for told in reversed(told_of(pair)) if name in told), None)


def told_of(pair: Pair) -> list[dict[str, Any]]:
    """The entries of the table that hold for a pair, the plainest first."""
    found = []
    for name in (pair.model_type, pair.name):
        own = OVERRIDES.get(name, {})
        found += [OVERRIDES.get(own.get("_like", ""), {}), own]
    return found


def settings_of(adaptor: Any, pair: Pair) -> dict[str, Any]:
    """What an adaptor asks of a configuration."""
    return dict(adaptor.settings(pair) if hasattr(adaptor, "settings") else adaptor.SETTINGS)


def build(pair: Pair, more: Mapping[str, Any], seed: int = 0) -> Any:
    """The model, in evaluation mode. `more` are settings that the task asks for (`num_labels`).

    Raises:
        CannotBuild: with what its classes raise.
    """
    import torch
    import transformers

    wanted = note_of(pair, "_class") or pair.architectures[0]
    kind = getattr(transformers, wanted, None)
    if kind is None:
        raise CannotBuild(f"transformers has no {wanted} here")
    try:
        config = tiny_config(note_of(pair, "_type") or pair.model_type, changes_of(pair, more))
        expected = getattr(kind, "config_class", None)
        if expected is not None and not isinstance(config, expected):
            config = _inner(config, expected, more)
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in kind(config).parameters())
        if size > MOST_PARAMETERS:
            raise CannotBuild(f"{size:,} parameters, even with a shrunk configuration")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = kind(config).eval()
            stir(model, 1 + seed / 2)
    except CannotBuild:
        raise
    except Exception as error:
        raise CannotBuild(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    return model


def stir(model: Any, strength: float = 1.0) -> None:
    """Moves every weight away from where it starts: a model whose biases are zero and whose norms are one hides mistakes, and
    one with the usual small weights says the same of everything."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.numel():  # tables of positions that are computed are not saved
                fan = parameter[0].numel() if parameter.dim() > 1 else 100
                parameter.add_(torch.randn_like(parameter) * strength * min(max(fan, 1) ** -0.5, 0.3))


@contextmanager
def settling(model: Any) -> Iterator[None]:
    """Lets batch norms learn the means of what passes, as training would: without, deep models of images fade to a constant."""
    import torch

    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all that passes
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.eval()


def _inner(config: Any, expected: Any, more: Mapping[str, Any]) -> Any:
    """The part of a configuration that a class takes: a text model's of one that takes images too. The whole is kept beside it,
    for the checkpoint."""
    for name in getattr(config, "sub_configs", {}):
        if isinstance(part := getattr(config, name, None), expected):
            for key, value in more.items():
                setattr(part, key, value)
            part.whole = config
            return part
    return config


def save(model: Any, folder: Path) -> None:
    """The checkpoint, in the form that the mappings know: a part's model is described by the whole's configuration."""
    whole = model.config.__dict__.pop("whole", None)
    model.save_pretrained(folder)
    if whole is not None:
        whole.architectures = [type(model).__name__]
        whole.save_pretrained(folder)
