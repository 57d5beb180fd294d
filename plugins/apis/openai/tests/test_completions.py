from __future__ import annotations

import json

import openai
import pytest

from modelport.contract import InputTooLong, ModelFailed, Overloaded, UnsupportedParameter, Usage
from modelport.tasks.text import GeneratedChoice, GenerationDelta, GenerationResult, TextToken

PATH = "/v1/completions"
BODY = {"model": "tiny", "prompt": "Once"}


@pytest.fixture(autouse=True)
def continuation(host, words):
    host.answers["text-generation"] = words(" upon", " a time")


async def test_sdk_gets_a_completion(sdk):
    completion = await sdk.completions.create(model="tiny", prompt="Once", temperature=0)
    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-")
    assert completion.model == "tiny"
    assert [(c.index, c.text, c.finish_reason, c.logprobs) for c in completion.choices] == [(0, " upon a time", "stop", None)]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens, completion.usage.total_tokens) == (5, 3, 8)


async def test_sdk_streams_a_completion_that_adds_up_to_the_plain_one(sdk):
    chunks = [chunk async for chunk in await sdk.completions.create(model="tiny", prompt="Once", stream=True)]
    assert "".join(chunk.choices[0].text for chunk in chunks) == " upon a time"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([7, 8], [[7, 8]]), ([[7], [8, 9]], [[7], [8, 9]])],
)
async def test_every_form_of_prompt_becomes_one_request_each(http, host, prompt, prompts):
    await http.post(PATH, json={"model": "tiny", "prompt": prompt})
    assert [request.prompt for request in host.requests] == prompts


async def test_choices_of_several_prompts_are_numbered_prompt_by_prompt(http, host):
    host.answers["text-generation"] = lambda request: GenerationResult(
        choices=[GeneratedChoice(index=i, text=f"{request.prompt}{i}", finish_reason="length") for i in range(2)]
    )
    answer = (await http.post(PATH, json={"model": "tiny", "prompt": ["a", "b"], "n": 2, "best_of": 2})).json()
    assert [(c["index"], c["text"]) for c in answer["choices"]] == [(0, "a0"), (1, "a1"), (2, "b0"), (3, "b1")]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert answer["usage"]["total_tokens"] == 16


async def test_streams_of_several_prompts_are_numbered_prompt_by_prompt(sdk, host):
    host.answers["text-generation"] = lambda request: [
        GenerationDelta(index=i, text=f"{request.prompt}{i}", finish_reason="stop") for i in range(2)
    ]
    options = {"stream_options": {"include_usage": True}}
    stream = await sdk.completions.create(model="tiny", prompt=["a", "b"], n=2, stream=True, **options)
    chunks = [chunk async for chunk in stream]
    assert sorted((c.choices[0].index, c.choices[0].text) for c in chunks[:-1]) == [(0, "a0"), (1, "a1"), (2, "b0"), (3, "b1")]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 16
    assert all(stream.closed for stream in host.streams)


async def test_a_refusal_of_one_prompt_closes_the_streams_of_the_others(http, host, words):
    full = Overloaded("Full.", retry_after_s=0.25)
    host.answers["text-generation"] = lambda request: words("x") if request.prompt == "a" else full
    response = await http.post(PATH, json={"model": "tiny", "prompt": ["a", "b"], "stream": True})
    assert response.status_code == 429
    assert response.headers["retry-after-ms"] == "250"
    assert [stream.closed for stream in host.streams] == [True]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ("long", "prompt"),
        (["short", "long"], "prompt.1"),
        (["long"], "prompt.0"),
        ([[7], [8, 9]], "prompt.1"),
        ([8, 9], "prompt"),
    ],
)
async def test_a_prompt_that_is_refused_is_named_by_its_place(refused, host, words, prompt, param, stream):
    too_long = InputTooLong("The prompt has 900 tokens; the model takes 512.", param="prompt")
    host.answers["text-generation"] = lambda request: too_long if request.prompt in ("long", [8, 9]) else words("x")
    error = await refused(PATH, {"model": "tiny", "prompt": prompt, "stream": stream})
    assert (error["param"], error["code"]) == (param, "context_length_exceeded")


async def test_what_is_wrong_with_all_prompts_is_not_said_of_one(refused, host):
    host.answers["text-generation"] = UnsupportedParameter("top_k is not honoured here.", param="top_k")
    assert (await refused(PATH, {"model": "tiny", "prompt": ["a", "b"], "top_k": 3}))["param"] == "top_k"


async def test_usage_is_null_in_every_chunk_but_the_last_and_absent_if_nobody_asked(http):
    asked = await http.post(PATH, json=BODY | {"stream": True, "stream_options": {"include_usage": True}})
    events = [line.removeprefix("data: ") for line in asked.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    usages = [json.loads(item)["usage"] for item in events]
    assert usages[:-1] == [None] * 3
    details = {"cached_tokens": 0}
    assert usages[-1] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8, "prompt_tokens_details": details}
    assert "usage" not in (await http.post(PATH, json=BODY | {"stream": True})).text


async def test_sampling_reaches_the_task_in_its_own_names(http, host):
    sent = {
        "max_tokens": 7, "min_tokens": 2, "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "seed": -3, "n": 2,
        "stop": ["\n", "END"], "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "ignore_eos": True,
        "logit_bias": {"50256": -100}, "cache_salt": "me", "truncate_prompt_tokens": -1, "echo": True, "logprobs": 2,
    }  # fmt: skip
    response = await http.post(PATH, json=BODY | sent)
    assert response.status_code == 200, response.text
    request = host.request
    assert (request.max_new_tokens, request.min_new_tokens, request.seed, request.n) == (7, 2, -3, 2)
    assert (request.do_sample, request.temperature, request.top_p, request.top_k, request.min_p) == (True, 0.5, 0.9, 0, 0.1)
    assert (request.presence_penalty, request.frequency_penalty, request.repetition_penalty) == (1, -1, 1.1)
    assert (request.stop, request.ignore_eos, request.cache_salt, request.truncate) == (["\n", "END"], True, "me", True)
    assert request.logit_bias == {50256: -100}
    assert (request.echo, request.logprobs, request.prompt_logprobs) == (True, 2, 2)


async def test_defaults_are_openais_sixteen_tokens_and_sampling(http, host):
    await http.post(PATH, json=BODY)
    request = host.request
    assert (request.max_new_tokens, request.do_sample, request.temperature, request.top_p) == (16, True, None, None)
    assert (request.logprobs, request.stop, request.echo) == (None, None, False)


@pytest.mark.parametrize("greedy", [{"temperature": 0}, {"top_p": 0, "temperature": 0.7}])
async def test_temperature_or_top_p_of_nought_is_greedy(http, host, greedy):
    await http.post(PATH, json=BODY | greedy)
    assert host.request.do_sample is False


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("suffix", "end", "suffix"),
        ("best_of", 3, "best_of"),
        ("temperature", 2.5, "temperature"),
        ("presence_penalty", 3, "presence_penalty"),
        ("logit_bias", {"5": 101}, "logit_bias"),
        ("logit_bias", {"word": 1}, "logit_bias"),
        ("stop", ["a", "b", "c", "d", "e"], "stop"),
        ("stop", "", "stop"),
        ("prompt", [], "prompt"),
        ("logprobs", 21, "logprobs"),
        ("stream_options", {"include_usage": True}, "stream_options"),
        ("messages", [], "messages"),
    ],
)
async def test_a_field_that_cannot_work_is_refused_by_name(refused, field, value, param):
    error = await refused(PATH, BODY | {field: value})
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_a_parameter_nobody_honours_is_named_as_the_caller_wrote_it(refused, host):
    host.answers["text-generation"] = UnsupportedParameter(
        "min_new_tokens is not honoured here. Put 'min_new_tokens' into models.tiny.require.", param="min_new_tokens"
    )
    error = await refused(PATH, BODY | {"min_tokens": 3})
    assert (error["param"], error["code"]) == ("min_tokens", "unsupported_parameter")
    assert error["message"] == "min_tokens is not honoured here. Put 'min_new_tokens' into models.tiny.require."


# ---------------------------------------------------------------------------------------------------------- logprobs


def token(id: int, data: bytes, logprob: float | None, top: list[TextToken] | None = None) -> TextToken:
    return TextToken(id=id, text=data.decode(errors="replace"), data=data, logprob=logprob, top=top)


PROMPT = [token(1, b"On", None), token(2, b"ce", -0.5, [token(3, b"ly", -0.25)])]
TAIL = [token(4, b" \xe2\x82", -1.0, [token(4, b" \xe2\x82", -1.0)]), token(5, b"\xac!", float("-inf"))]


async def test_logprobs_have_the_old_shape_with_the_prompt_when_it_is_echoed(sdk, host):
    choice = GeneratedChoice(text="Once €!", tokens=TAIL, prompt_tokens=PROMPT, finish_reason="length")
    host.answers["text-generation"] = GenerationResult(choices=[choice])
    completion = await sdk.completions.create(model="tiny", prompt="Once", echo=True, logprobs=1)
    logprobs = completion.choices[0].logprobs
    assert logprobs.tokens == ["On", "ce", "bytes:\\x20\\xe2\\x82", "bytes:\\xac\\x21"]
    assert logprobs.token_logprobs == [None, -0.5, -1.0, -9999.0]
    assert logprobs.text_offset == [0, 2, 4, 5]
    assert logprobs.top_logprobs == [
        None,
        {"ly": -0.25, "ce": -0.5},
        {"bytes:\\x20\\xe2\\x82": -1.0},
        {"bytes:\\xac\\x21": -9999.0},
    ]


async def test_streamed_logprobs_go_on_counting_where_the_last_chunk_ended(sdk, host):
    host.answers["text-generation"] = [
        GenerationDelta(text="Once", prompt_tokens=PROMPT),
        GenerationDelta(tokens=TAIL[:1], text=" "),
        GenerationDelta(tokens=TAIL[1:], text="€!", finish_reason="length"),
    ]
    stream = await sdk.completions.create(model="tiny", prompt="Once", echo=True, logprobs=0, stream=True)
    pieces = [chunk.choices[0].logprobs async for chunk in stream]
    assert [offset for piece in pieces for offset in piece.text_offset] == [0, 2, 4, 5]
    assert [piece.top_logprobs for piece in pieces] == [None, None, None]


async def test_a_choice_that_failed_is_an_error_and_not_an_answer(http, host):
    host.answers["text-generation"] = GenerationResult(choices=[GeneratedChoice(text="half", finish_reason="error")])
    response = await http.post(PATH, json=BODY)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "model_failed"


async def test_a_stream_that_fails_raises_in_the_sdk_and_says_nothing_more(sdk, http, host):
    host.answers["text-generation"] = [GenerationDelta(text="half"), ModelFailed("The model's process died.")]
    with pytest.raises(openai.APIError, match="The model's process died") as caught:
        async for _ in await sdk.completions.create(model="tiny", prompt="Once", stream=True):
            pass
    assert caught.value.code == "model_failed"
    text = (await http.post(PATH, json=BODY | {"stream": True})).text
    assert text.endswith('"param":null,"code":"model_failed"}}\n\n')
    assert "[DONE]" not in text


async def test_cached_tokens_are_reported(sdk, host):
    host.usage = Usage(prompt_tokens=5, completion_tokens=3, cached_tokens=4)
    completion = await sdk.completions.create(model="tiny", prompt="Once")
    assert completion.usage.prompt_tokens_details.cached_tokens == 4


async def test_more_prompts_than_one_request_may_hold_are_refused_before_any_is_run(refused, host):
    error = await refused(PATH, {"model": "tiny", "prompt": ["x"] * 2049})
    assert error["param"] == "prompt"
    assert "2048" in error["message"]
    assert host.requests == []


async def test_many_token_ids_are_one_prompt(http, host):
    assert (await http.post(PATH, json={"model": "tiny", "prompt": [7] * 3000})).status_code == 200
    assert len(host.request.prompt) == 3000


@pytest.mark.parametrize("stream", [False, True])
async def test_no_tokens_asked_for_are_no_tokens_of_usage(http, stream):
    body = {**BODY, "max_tokens": 0, "echo": True, "logprobs": 0, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    answer = await http.post(PATH, json=body)
    text = answer.text.split("data: ")[-2] if stream else answer.text
    usage = json.loads(text)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (5, 0, 5)
