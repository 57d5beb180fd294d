"""How one request chooses its tokens: the caller's parameters over the checkpoint's generation_config.json."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.generate import Sampling

__all__ = ["Rules", "end_tokens", "resolve_rules"]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """Sampling with every default filled in; `None` and neutral values mean: not applied."""

    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    min_new_tokens: int = 0
    max_new_tokens: int | None = None
    eos: frozenset[int] = frozenset()
    ignore_eos: bool = False
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    seed: int | None = None

    @property
    def edits(self) -> bool:
        """Whether logits are changed before a token is chosen, in ways that depend on the sequence itself."""
        return bool(
            self.repetition_penalty != 1.0
            or self.no_repeat_ngram_size
            or self.presence_penalty
            or self.frequency_penalty
            or self.logit_bias
            or self.min_new_tokens
            or self.suppress
            or self.begin_suppress
        )

    @property
    def filters(self) -> bool:
        """Whether less than the whole vocabulary is drawn from."""
        return bool(self.top_k or self.top_p < 1.0 or self.min_p or self.typical_p < 1.0)


_LARGEST = 1e6
_COLDEST = 1e-5  # below it, logits over the temperature are more than float32 holds, and only the best token has a chance
_CHOOSES = ("temperature", "top_k", "top_p", "min_p", "typical_p")


def resolve_rules(params: Sampling, defaults: Any, vocabulary: int) -> Rules:
    """The rules of a request.

    Whether to sample: `temperature=0` and `do_sample=False` are greedy. `do_sample=True`, or any of temperature, top_k,
    top_p, min_p and typical_p given by the caller, samples. Else the checkpoint's own `do_sample` decides.
    transformers' built-in top_k of 50 applies only if generation_config.json names it.

    Args:
        defaults: transformers' GenerationConfig of the checkpoint.
        vocabulary: Size of the vocabulary, which `logit_bias` must respect.

    Raises:
        InvalidRequest: if a value is out of range; `param` names it.
    """

    def pick(name: str, neutral: Any) -> Any:
        value = getattr(params, name)
        if value is None:
            value = getattr(defaults, name, None)
        return neutral if value is None else value

    called = params.do_sample is True or any(getattr(params, name) is not None for name in _CHOOSES)
    sample = called if params.do_sample is None else params.do_sample
    if params.do_sample is None and not called:
        sample = bool(getattr(defaults, "do_sample", None))
    temperature = pick("temperature", 1.0)

    def within(tokens: Iterable[int]) -> frozenset[int]:
        """Those that the model can say: a checkpoint may name others."""
        return frozenset(token for token in tokens if 0 <= token < vocabulary)

    rules = Rules(
        sample=sample and temperature >= _COLDEST,
        temperature=temperature,
        top_k=pick("top_k", 0),
        top_p=pick("top_p", 1.0),
        min_p=pick("min_p", 0.0),
        typical_p=pick("typical_p", 1.0),
        repetition_penalty=pick("repetition_penalty", 1.0),
        no_repeat_ngram_size=pick("no_repeat_ngram_size", 0),
        presence_penalty=params.presence_penalty or 0.0,
        frequency_penalty=params.frequency_penalty or 0.0,
        logit_bias=params.logit_bias or {},
        min_new_tokens=pick("min_new_tokens", 0),
        max_new_tokens=pick("max_new_tokens", None),
        eos=within(end_tokens(defaults)) if params.eos_token_id is None else frozenset(params.eos_token_id),
        ignore_eos=bool(params.ignore_eos),
        suppress=tuple(within(getattr(defaults, "suppress_tokens", None) or ())),
        begin_suppress=tuple(within(getattr(defaults, "begin_suppress_tokens", None) or ())),
        seed=params.seed,
    )
    _check(rules, vocabulary)
    return rules


def end_tokens(defaults: Any) -> frozenset[int]:
    """The tokens that end an output, of a checkpoint's GenerationConfig."""
    own = getattr(defaults, "eos_token_id", None)
    return frozenset([own] if isinstance(own, int) else map(int, own or ()))


def _check(rules: Rules, vocabulary: int) -> None:
    ranges: tuple[tuple[str, bool, str], ...] = (
        ("temperature", rules.temperature >= 0, "at least 0"),
        ("top_k", rules.top_k >= 0, "at least 0 (0 is all)"),
        ("top_p", 0 <= rules.top_p <= 1, "between 0 and 1"),
        ("min_p", 0 <= rules.min_p <= 1, "between 0 and 1"),
        ("typical_p", 0 < rules.typical_p <= 1, "above 0 and at most 1"),
        ("repetition_penalty", rules.repetition_penalty > 0, "above 0"),
        ("no_repeat_ngram_size", rules.no_repeat_ngram_size >= 0, "at least 0"),
        ("min_new_tokens", rules.min_new_tokens >= 0, "at least 0"),
        ("max_new_tokens", rules.max_new_tokens is None or rules.max_new_tokens > 0, "at least 1"),
    )
    for name, fits, range_ in ranges:
        if not fits:
            raise InvalidRequest(f"{name} is {getattr(rules, name)}; it must be {range_}.", param=name)
    if any(not math.isfinite(bias) or abs(bias) > _LARGEST for bias in rules.logit_bias.values()):
        raise InvalidRequest(f"logit_bias holds a value that is no number between ±{_LARGEST:g}.", param="logit_bias")
    for name, tokens in (("logit_bias", rules.logit_bias), ("eos_token_id", rules.eos)):
        outside = [token for token in tokens if not 0 <= token < vocabulary]
        if outside:
            raise InvalidRequest(
                f"{name} names the token {outside[0]}, and the vocabulary has the tokens 0 to {vocabulary - 1}.", param=name
            )
