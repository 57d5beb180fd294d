"""TGI's request for text, in the task's terms, and the task's answer in TGI's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from modelport.contract.errors import Cancelled, InvalidRequest, ModelFailed, UnsupportedParameter
from modelport.contract.generate import Constraint
from modelport.tasks.text import MOST_LOGPROBS, GeneratedChoice, GenerationRequest, TextToken

__all__ = ["NAMES", "GenerateBody", "GenerateParams", "answer_of", "finish_reason", "full_text", "score", "token_of"]

NAMES = {
    "prompt": "inputs",
    "constraint": "grammar",
    "logprobs": "details",
    "prompt_logprobs": "decoder_input_details",
    "adapter": "adapter_id",
    "n": "best_of",
}
"""What the task's fields are called here, for errors."""

Positive = Annotated[int, Meta(ge=1)]
_DEFAULT_NEW_TOKENS = 100


class Grammar(msgspec.Struct, forbid_unknown_fields=True):
    """A language that the output must be in. `value` is a JSON Schema (an object, or text), `{"schema": …}` for `json_schema`, or
    a regular expression."""

    type: Literal["json", "regex", "json_schema"]
    value: Any


class GenerateParams(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """TGI's parameters. Text is greedy unless `do_sample` or a parameter of sampling is set; 100 tokens unless said otherwise."""

    best_of: Positive | None = None
    temperature: Annotated[float, Meta(gt=0)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    top_k: Positive | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    do_sample: bool | None = None
    max_new_tokens: Positive | None = None
    return_full_text: bool | None = None
    stop: list[Annotated[str, Meta(min_length=1)]] | None = None
    truncate: Positive | None = None
    watermark: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    seed: int | None = None
    top_n_tokens: Annotated[int, Meta(ge=0, le=MOST_LOGPROBS)] | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        others = (self.top_k, self.typical_p, self.top_p if self.top_p != 1 else None)
        return bool(self.do_sample) or self.temperature not in (None, 1.0) or any(value is not None for value in others)

    def check(self, stream: bool) -> None:
        """Refuses what contradicts itself, as TGI does.

        Raises:
            InvalidRequest: naming the parameter.
        """
        if self.watermark:
            raise UnsupportedParameter(
                "watermark: text is not watermarked here; leave it out. The following `model_kwargs` are not used by the model:"
                " ['watermark']",
                param="watermark",
            )
        if (self.best_of or 1) > 1:
            if stream:
                raise InvalidRequest("best_of: more than 1 is not possible in a stream.", param="best_of")
            if not self.samples:
                raise InvalidRequest("best_of: more than 1 needs sampling; set do_sample.", param="best_of")
            if self.seed is not None:
                raise InvalidRequest("seed: best_of of more than 1 draws with seeds of its own; leave it out.", param="seed")
        if stream and self.decoder_input_details:
            raise InvalidRequest("decoder_input_details is not possible in a stream.", param="decoder_input_details")

    def to_task(self, prompt: str | list[int], *, stream: bool) -> GenerationRequest:
        """The request in the task's terms.

        Raises:
            InvalidRequest: for what contradicts itself.
        """
        self.check(stream)
        several = (self.best_of or 1) > 1
        reports = stream or self.details or several or self.top_n_tokens
        fields: dict[str, Any] = {
            "prompt": prompt,
            "max_new_tokens": self.max_new_tokens or _DEFAULT_NEW_TOKENS,
            "do_sample": self.samples,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "typical_p": self.typical_p,
            "repetition_penalty": self.repetition_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": self.seed,
            "stop": self.stop or None,
            "n": self.best_of,
            "logprobs": (self.top_n_tokens or 0) if reports else None,
            "prompt_logprobs": 0 if self.details and self.decoder_input_details else None,
            "constraint": self._constraint(),
            "adapter": self.adapter_id,
        }
        return GenerationRequest(**{name: value for name, value in fields.items() if value is not None})

    def _constraint(self) -> Constraint | None:
        if self.grammar is None:
            return None
        value = self.grammar.value
        if self.grammar.type == "regex":
            if not isinstance(value, str):
                raise InvalidRequest("grammar.value must be a regular expression, as text.", param="grammar.value")
            return Constraint("regex", value)
        if self.grammar.type == "json_schema":
            value = value.get("schema") if isinstance(value, dict) else None
            if not isinstance(value, dict):
                raise InvalidRequest("grammar.value must be an object with a 'schema'.", param="grammar.value")
        if not isinstance(value, dict | str):
            raise InvalidRequest("grammar.value must be a JSON Schema.", param="grammar.value")
        return Constraint("json_schema", value if isinstance(value, str) else json.dumps(value))


class GenerateBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """TGI's request."""

    inputs: Annotated[str, Meta(min_length=1)]
    parameters: GenerateParams | None = None
    stream: bool | None = None


def answer_of(body: GenerateBody, choices: Sequence[GeneratedChoice], generated: int) -> dict[str, Any]:
    """TGI's answer: the likeliest choice, and, with `details`, what is known of its tokens and of the others."""
    params = body.parameters or GenerateParams()
    best, *others = sorted(choices, key=score, reverse=True)
    answer: dict[str, Any] = {"generated_text": full_text(body, best)}
    if params.details:
        details = _details(params, best, generated if len(choices) == 1 else len(best.tokens or ()))
        if others:
            details["best_of_sequences"] = [
                {"generated_text": full_text(body, choice), **_details(params, choice, len(choice.tokens or ()))}
                for choice in others
            ]
        answer["details"] = details
    return answer


def score(choice: GeneratedChoice) -> float:
    """The mean log probability of a choice's tokens, by which TGI ranks."""
    tokens = choice.tokens or ()
    return sum(token.logprob or 0.0 for token in tokens) / max(len(tokens), 1)


def full_text(body: GenerateBody, choice: GeneratedChoice) -> str:
    """The text of a choice with the stop sequence that ended it, which TGI keeps, and the prompt where that is wanted."""
    finish_reason(choice.finish_reason, choice.stop_sequence)
    before = body.inputs if body.parameters is not None and body.parameters.return_full_text else ""
    return before + choice.text + (choice.stop_sequence or "")


def finish_reason(reason: str, stop_sequence: str | None) -> Literal["length", "eos_token", "stop_sequence"]:
    """Why a choice ended, in TGI's words.

    Raises:
        ModelportError: it did not end well, and half an answer must not pass for a whole one.
    """
    match reason:
        case "length":
            return "length"
        case "stop" | "tool_calls":
            return "stop_sequence" if stop_sequence else "eos_token"
        case "cancelled":
            raise Cancelled("The request was cancelled before the text was complete.")
        case _:
            raise ModelFailed("The model failed before the text was complete. Sending the request again may succeed.")


def token_of(token: TextToken) -> dict[str, Any]:
    """A token in TGI's form."""
    return {"id": token.id, "text": token.text, "logprob": token.logprob, "special": token.special}


def _details(params: GenerateParams, choice: GeneratedChoice, generated: int) -> dict[str, Any]:
    tokens = choice.tokens or []
    details: dict[str, Any] = {
        "finish_reason": finish_reason(choice.finish_reason, choice.stop_sequence),
        "generated_tokens": generated,
        "seed": params.seed,
        "prefill": [{"id": token.id, "text": token.text, "logprob": token.logprob} for token in choice.prompt_tokens or ()],
        "tokens": [token_of(token) for token in tokens],
    }
    if params.top_n_tokens:
        details["top_tokens"] = [[token_of(top) for top in token.top or ()] for token in tokens]
    return details
