"""The fields that completions and chat completions have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from modelport_api_openai.constraint import ConstrainedBody
from modelport_api_openai.errors import invalid

__all__ = ["GENERATION_NAMES", "GenerationBody", "StreamOptions"]

GENERATION_NAMES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "do_sample": "temperature",
    "prompt_logprobs": "logprobs",
    "truncate": "truncate_prompt_tokens",
}
"""What the task's fields are called here, for errors."""

Penalty: TypeAlias = Annotated[float, Meta(ge=-2, le=2)]
Bias: TypeAlias = Annotated[float, Meta(ge=-100, le=100)]
StopText: TypeAlias = Annotated[str, Meta(min_length=1)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a stream carries beside the deltas. `include_obfuscation` is ignored: nothing is padded."""

    include_usage: bool | None = None
    include_obfuscation: Any = None


class GenerationBody(ConstrainedBody, kw_only=True, forbid_unknown_fields=True):
    """Sampling, stopping, streaming, and what the answer must be.

    From `top_k` to `truncate_prompt_tokens` they are additions, as vLLM names them.

    From `user` on, the fields are accepted and ignored: they ask for bookkeeping that this server does not do.
    """

    model: str
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    seed: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[int, Bias] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    ignore_eos: bool | None = None
    cache_salt: str | None = None
    truncate_prompt_tokens: Literal[-1] | None = None

    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None

    @property
    def with_usage(self) -> bool:
        """Whether the stream ends with a chunk of usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self) -> dict[str, Any]:
        """The fields in the task's terms, as arguments of a `GenerationRequest`; what was not sent is not in it.

        Raises:
            InvalidRequest: for fields that contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "The field 'stream_options' needs 'stream': true.")
        fields: dict[str, Any] = {
            "max_new_tokens": self.max_tokens,
            "min_new_tokens": self.min_tokens or None,
            "do_sample": self.temperature != 0 and self.top_p != 0,
            "temperature": self.temperature or None,
            "top_p": self.top_p or None,
            "top_k": 0 if self.top_k == -1 else self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty or None,
            "frequency_penalty": self.frequency_penalty or None,
            "logit_bias": self.logit_bias or None,
            "ignore_eos": self.ignore_eos or None,
            "seed": self.seed,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop or None,
            "n": self.n,
            "cache_salt": self.cache_salt,
            "constraint": self.constraint(),
            "truncate": True if self.truncate_prompt_tokens else None,
        }
        return {name: value for name, value in fields.items() if value is not None}
