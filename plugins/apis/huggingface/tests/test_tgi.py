"""TGI's routes: what is asked of the model, and the shapes that its clients parse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelport.contract import Constraint, ModelFailed, ModelInfo, Overloaded, UnsupportedParameter
from modelport.tasks.text import (
    FEATURE_EXTRACTION,
    TEXT_GENERATION,
    GeneratedChoice,
    GenerationDelta,
    GenerationResult,
    TextToken,
    join_generation,
)
from modelport.testing.fake_host import FakeHost, FakeStream
from modelport_api_huggingface.generation import GenerateBody
from modelport_api_huggingface.stream import event_stream

from .fakes import TASKS, answer, fake_host, served

CHAT = ModelInfo(id="chat", tasks=("text-generation", "tokenization"), context_length=64, end_tokens=(9, 7))
EMBEDDER = ModelInfo(id="embedder", tasks=("feature-extraction", "tokenization"))


def token(id: int, text: str, logprob: float = -0.5, **more: Any) -> TextToken:
    return TextToken(id=id, text=text, logprob=logprob, data=text.encode(), **more)


async def written(stream: FakeStream) -> str:
    """What the response of a stream holds."""
    bodies = []

    async def send(message: dict[str, Any]) -> None:
        bodies.append(message.get("body", b""))

    await event_stream(stream, GenerateBody(inputs="Say"), {}).to_asgi_response()({}, None, send)
    return b"".join(bodies).decode()


def host_of(*deltas: GenerationDelta, **fields: Any) -> FakeHost:
    """A host whose model generates these deltas."""

    def generate(task: str, request: Any, stream: bool = False) -> Any:
        if task != "text-generation":
            return answer(task, request)
        return list(deltas) if stream else join_generation(deltas)

    return fake_host(models=(CHAT,), answer=generate, **fields)


HELLO = (
    GenerationDelta(text="Hel", tokens=[token(1, "Hel")]),
    GenerationDelta(text="lo", tokens=[token(2, "lo")]),
    GenerationDelta(finish_reason="stop"),
)


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data:")) for line in text.splitlines() if line.startswith("data:")]


async def post(host: FakeHost, path: str, **body: Any) -> Any:
    async with served(host) as http:
        response = await http.post(path, json=body)
    assert response.status_code == 200, response.text
    return response


async def test_text_and_its_headers():
    host = host_of(*HELLO)
    response = await post(host, "/generate", inputs="Say")
    assert response.json() == {"generated_text": "Hello"}
    request = host.calls[0].request
    assert (request.prompt, request.max_new_tokens, request.do_sample, request.logprobs) == ("Say", 100, False, None)
    for name in ("compute-type", "compute-time", "compute-characters", "total-time", "validation-time", "queue-time"):
        assert f"x-{name}" in response.headers, name
    assert response.headers["x-compute-characters"] == "3"
    for name in ("inference-time", "time-per-token", "prompt-tokens", "generated-tokens"):
        assert float(response.headers[f"x-{name}"]) >= 0, name


async def test_the_root_answers_with_a_list_of_one():
    assert (await post(host_of(*HELLO), "/", inputs="Say")).json() == [{"generated_text": "Hello"}]
    assert (await post(host_of(*HELLO), "/invocations", inputs="Say")).json() == [{"generated_text": "Hello"}]


async def test_sagemaker_and_vertex_take_conversations_and_prompts_of_openai():
    say = {"messages": [{"role": "user", "content": "hi"}]}
    chat = (await post(host_of(*HELLO), "/invocations", **say)).json()
    assert (chat["object"], chat["model"], chat["choices"][0]["message"]["content"]) == ("chat.completion", "chat", "Hello")
    events = (await post(host_of(*HELLO), "/invocations", **say, stream=True, model="tgi")).text
    assert '"delta":{"content":"Hel"}' in events
    prompt = (await post(host_of(*HELLO), "/invocations", prompt="Say")).json()
    assert (prompt["object"], prompt["choices"][0]["text"]) == ("text_completion", "Hello")
    both = (await post(host_of(*HELLO), "/vertex", instances=[say, {"inputs": "a"}])).json()
    assert both == {"predictions": ["Hello", "Hello"]}
    async with served(host_of(*HELLO)) as http:
        wrong = say | {"top_p": 7}
        for path, body in (("/invocations", wrong), ("/vertex", {"instances": [{"inputs": "a"}, wrong]})):
            refused = await http.post(path, json=body)
            assert (refused.status_code, refused.json()["error_type"]) == (422, "validation")
            assert "top_p" in refused.json()["error"]


async def test_vertex_answers_each_instance_with_its_text():
    body = {"instances": [{"inputs": "a"}, {"inputs": "b", "parameters": {"return_full_text": True}}], "parameters": {}}
    response = await post(host_of(*HELLO), "/vertex", **body)
    assert response.json() == {"predictions": ["Hello", "bHello"]}
    assert response.headers["x-compute-characters"] == "2"


async def test_vertex_says_which_parameters_it_reads_and_what_failed():
    host = host_of(*HELLO)
    async with served(host) as http:
        beside = await http.post("/vertex", json={"instances": [{"inputs": "a"}], "parameters": {"max_new_tokens": 5}})
        assert (beside.status_code, host.calls) == (422, [])
        assert "each instance" in beside.json()["error"]
        host.failure = ModelFailed("Its process died.")
        for instance in ({"inputs": "a"}, {"messages": [{"role": "user", "content": "hi"}]}):
            failed = await http.post("/vertex", json={"instances": [instance, {"inputs": "b"}]})
            assert (failed.status_code, failed.json()["error_type"]) == (424, "generation")


async def test_parameters_reach_the_model():
    host = host_of(*HELLO)
    parameters = {
        "temperature": 0.5, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "top_k": 5, "top_p": 0.9, "typical_p": 0.8,
        "max_new_tokens": 7, "stop": ["\n"], "seed": 3, "adapter_id": "lora", "return_full_text": True, "watermark": False,
    }  # fmt: skip
    assert (await post(host, "/generate", inputs="Say", parameters=parameters)).json() == {"generated_text": "SayHello"}
    request = host.calls[0].request
    assert request.do_sample is True, "a temperature means sampling"
    for name in ("temperature", "repetition_penalty", "frequency_penalty", "top_k", "top_p", "typical_p", "max_new_tokens"):
        assert getattr(request, name) == parameters[name], name
    assert (request.stop, request.seed, request.adapter) == (["\n"], 3, "lora")


@pytest.mark.parametrize(
    ("grammar", "constraint"),
    [
        ({"type": "json", "value": {"type": "object"}}, Constraint("json_schema", '{"type": "object"}')),
        ({"type": "json", "value": '{"type": "object"}'}, Constraint("json_schema", '{"type": "object"}')),
        ({"type": "json_schema", "value": {"schema": {"type": "object"}}}, Constraint("json_schema", '{"type": "object"}')),
        ({"type": "regex", "value": "a+"}, Constraint("regex", "a+")),
    ],
)  # fmt: skip
async def test_grammars(grammar, constraint):
    host = host_of(*HELLO)
    await post(host, "/generate", inputs="Say", parameters={"grammar": grammar})
    assert host.calls[0].request.constraint == constraint


async def test_details_tell_of_tokens_and_of_the_prompt():
    likely = [token(1, "Hel"), token(7, "Hi", -1.5)]
    deltas = (
        GenerationDelta(
            text="Hel", tokens=[token(1, "Hel", top=likely)], prompt_tokens=[TextToken(id=5, text="S"), token(6, "ay", -2.0)]
        ),
        GenerationDelta(tokens=[token(3, "<|x|>", special=True, top=likely)], finish_reason="length"),
    )
    host = host_of(*deltas)
    asked = {"details": True, "decoder_input_details": True, "top_n_tokens": 2, "seed": 9, "do_sample": True}
    found = (await post(host, "/generate", inputs="Say", parameters=asked)).json()
    assert found["generated_text"] == "Hel"
    details = found["details"]
    assert (details["finish_reason"], details["seed"]) == ("length", 9)
    assert details["prefill"] == [
        {"id": 5, "text": "S", "logprob": None},
        {"id": 6, "text": "ay", "logprob": -2.0},
    ]
    assert details["tokens"] == [
        {"id": 1, "text": "Hel", "logprob": -0.5, "special": False},
        {"id": 3, "text": "<|x|>", "logprob": -0.5, "special": True},
    ]
    assert [[top["id"] for top in tops] for tops in details["top_tokens"]] == [[1, 7], [1, 7]]
    assert (host.calls[0].request.logprobs, host.calls[0].request.prompt_logprobs) == (2, 0)


async def test_the_best_of_several_comes_first():
    choices = [
        GeneratedChoice(index=0, text="bad", finish_reason="stop", tokens=[token(1, "bad", -3.0)]),
        GeneratedChoice(index=1, text="good", finish_reason="length", tokens=[token(2, "go", -0.1), token(3, "od", -0.1)]),
    ]
    host = fake_host(models=(CHAT,), answer=lambda *_, **__: GenerationResult(choices=choices))
    asked = {"best_of": 2, "do_sample": True, "details": True}
    found = (await post(host, "/generate", inputs="Say", parameters=asked)).json()
    assert (found["generated_text"], found["details"]["generated_tokens"]) == ("good", 2)
    (other,) = found["details"]["best_of_sequences"]
    assert (other["generated_text"], other["finish_reason"], other["generated_tokens"]) == ("bad", "eos_token", 1)
    assert host.calls[0].request.n == 2


async def test_a_long_prompt_is_cut_at_its_left_end_to_the_tokens_that_were_asked_for():
    host = host_of(*HELLO)
    await post(host, "/generate", inputs="abcdef", parameters={"truncate": 3})
    assert host.calls[-1].request.prompt == [ord("d"), ord("e"), ord("f")]
    await post(host, "/generate", inputs="ab", parameters={"truncate": 3})
    assert host.calls[-1].request.prompt == "ab"


# ------------------------------------------------------------------------------------------------------------- streams


async def test_a_stream_is_an_event_for_each_token_and_the_whole_with_the_last():
    host = host_of(*HELLO)
    response = await post(host, "/generate_stream", inputs="Say", parameters={"return_full_text": True, "seed": 4})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    events = events_of(response.text)
    assert [event["index"] for event in events] == [1, 2, 3]
    assert [event["token"]["id"] for event in events] == [1, 2, 9], "the last is the end token's"
    assert [event["token"]["special"] for event in events] == [False, False, True]
    assert [event["generated_text"] for event in events] == [None, None, "SayHello"]
    assert events[-1]["details"] == {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 3, "seed": 4}
    assert "top_tokens" not in events[0]
    assert host.streams[0].closed


@pytest.mark.parametrize(
    ("deltas", "text"),
    [
        ([GenerationDelta(text="ab", tokens=[token(1, "a"), token(2, "b")], finish_reason="length")], "ab"),
        ([GenerationDelta(text="猫", tokens=[token(1, "\ufffd"), token(2, "\ufffd")], finish_reason="length")], "猫"),
        ([GenerationDelta(text="a", tokens=[token(1, "a")]), GenerationDelta(text="b", finish_reason="stop")], "ab"),
        ([GenerationDelta(text="a", tokens=[token(1, "a")], finish_reason="stop", stop_sequence="END")], "aEND"),
        ([GenerationDelta(text="a"), GenerationDelta(text="b", finish_reason="length")], "ab"),
        ([GenerationDelta(text="a", tokens=[token(9, "<x>", special=True), token(1, "a")], finish_reason="length")], "a"),
    ],
)  # fmt: skip
async def test_the_events_texts_are_the_text(deltas, text):
    events = events_of((await post(host_of(*deltas), "/generate_stream", inputs="Say")).text)
    assert "".join(event["token"]["text"] for event in events) == text == events[-1]["generated_text"]
    assert [event["details"] is not None for event in events] == [*[False] * (len(events) - 1), True]
    told = {each.id for delta in deltas for each in delta.tokens or ()}
    assert {event["token"]["id"] for event in events} <= told | {None}, "no token is made up"
    plain = (await post(host_of(*deltas), "/generate", inputs="Say")).json()
    assert plain["generated_text"] == text


PIECES = st.lists(st.sampled_from(["a", "b", "é", "猫", "🐈"]).map(str), max_size=4)


@given(st.lists(PIECES, min_size=1, max_size=6), st.booleans(), st.sampled_from([None, "END"]))
async def test_whatever_the_deltas_hold_the_events_hold_too(deltas, told, stop):
    """Texts in any pieces, with tokens that split characters, or without any."""
    made = [
        GenerationDelta(
            text="".join(pieces),
            tokens=[token(5, "\ufffd") for piece in pieces for _ in piece.encode()] or None if told else None,
        )
        for pieces in deltas
    ]
    made[-1].finish_reason, made[-1].stop_sequence = "stop", stop
    text = "".join("".join(pieces) for pieces in deltas) + (stop or "")
    stream = FakeStream("m", made, None, None)
    found = events_of(await written(stream))
    assert "".join(event["token"]["text"] for event in found) == text == found[-1]["generated_text"]
    assert [event["index"] for event in found] == list(range(1, len(found) + 1))
    assert stream.closed


async def test_a_stream_that_fails_ends_with_an_error_event():
    host = host_of(*HELLO[:1])
    host.failure_midway = ModelFailed("Its process died.")
    events = events_of((await post(host, "/generate_stream", inputs="Say")).text)
    assert events[-1] == {"error": "Its process died.", "error_type": "generation"}
    assert events_of((await post(host_of(*HELLO[:1]), "/generate_stream", inputs="Say")).text)[-1]["error_type"] == "generation"


async def test_text_is_streamed_even_where_no_tokens_are_told():
    class Mute(FakeHost):
        async def stream(self, task, model, request, *rest):
            if request.logprobs is not None:
                raise UnsupportedParameter("logprobs is not supported.", param="logprobs")
            return await super().stream(task, model, request, *rest)

    deltas = [GenerationDelta(text="Hel"), GenerationDelta(text="lo", finish_reason="length")]
    host = Mute([CHAT], TASKS, lambda *_, **__: deltas)
    events = events_of((await post(host, "/generate_stream", inputs="Say")).text)
    assert [event["token"]["text"] for event in events] == ["Hel", "lo"]
    async with served(host) as http:
        response = await http.post("/generate_stream", json={"inputs": "Say", "parameters": {"details": True}})
    assert response.status_code == 422
    assert response.json() == {"error": "details is not supported.", "error_type": "validation"}


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("path", "parameters", "why"),
    [
        ("/generate", {"watermark": True}, "model_kwargs"),
        ("/generate", {"best_of": 2}, "needs sampling"),
        ("/generate", {"best_of": 2, "do_sample": True, "seed": 1}, "seed"),
        ("/generate_stream", {"best_of": 2, "do_sample": True}, "best_of"),
        ("/generate_stream", {"decoder_input_details": True}, "decoder_input_details"),
        ("/generate", {"temperature": 0}, "temperature"),
        ("/generate", {"max_new_tokens": 0}, "max_new_tokens"),
        ("/generate", {"grammar": {"type": "json_schema", "value": {}}}, "schema"),
        ("/generate", {"typo": 1}, "typo"),
    ],
)
async def test_what_is_wrong_is_a_validation_error(path, parameters, why):
    host = host_of(*HELLO)
    async with served(host) as http:
        response = await http.post(path, json={"inputs": "Say", "parameters": parameters})
    assert response.status_code == 422
    assert why in response.json()["error"]
    assert response.json()["error_type"] == "validation"
    assert host.calls == []


async def test_a_full_queue_says_when_to_come_back():
    host = host_of(*HELLO)
    host.failure = Overloaded("The queue is full.", retry_after_s=1.5)
    async with served(host) as http:
        response = await http.post("/generate", json={"inputs": "Say"})
    assert (response.status_code, response.headers["retry-after"]) == (429, "2")
    assert response.json() == {"error": "The queue is full.", "error_type": "overloaded"}


# -------------------------------------------------------------------------------------------------------------- tokens


async def test_tokens_of_a_text_are_one_list():
    found = (await post(host_of(), "/tokenize", inputs="ab")).json()
    assert found == [
        {"id": 1, "text": "", "start": 0, "stop": 0},
        {"id": 97, "text": "a", "start": 0, "stop": 1},
        {"id": 98, "text": "b", "start": 1, "stop": 2},
    ]


async def test_a_conversation_is_rendered_and_tokenised():
    host = host_of(GenerationDelta(text="<user>hi", finish_reason="length"))
    found = (await post(host, "/chat_tokenize", messages=[{"role": "user", "content": "hi"}])).json()
    assert found["templated_text"] == "<user>hi"
    assert "".join(each["text"] for each in found["tokenize_response"]) == "<user>hi"
    rendered = host.calls[0].request
    assert (rendered.max_new_tokens, rendered.echo) == (0, True), "nothing is generated"


# ------------------------------------------------------------------------------------------------------- which of many


async def test_root_routes_ask_the_only_model_that_fits_or_the_one_that_is_named():
    host = fake_host(models=(CHAT, EMBEDDER))
    async with served(host) as http:
        assert (await http.get("/info")).status_code == 400
        for path in ("/", "/tokenize"):
            response = await http.post(path, json={"inputs": "a"})
            assert response.status_code == 400
            assert "apis.huggingface.model" in response.json()["error"]
        assert (await http.post("/generate", json={"inputs": "a"})).status_code == 200
        assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200
        assert (await http.post("/rerank", json={"query": "a", "texts": ["b"]})).status_code == 404
    async with served(host, model="chat") as http:
        info = (await http.get("/info")).json()
        assert (info["model_id"], info["max_total_tokens"], info["max_input_tokens"]) == ("chat", 64, 63)
        assert isinstance((await http.post("/tokenize", json={"inputs": "a"})).json()[0], dict)
        assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200, "the only one that embeds"
    async with served(host, model="embedder") as http:
        assert "embedding" in (await http.get("/info")).json()["model_type"]
        assert isinstance((await http.post("/tokenize", json={"inputs": "a"})).json()[0], list)
        assert (await http.post("/", json={"inputs": "a"})).json() == [[1.0, 0.0, 0.0, 0.0]]


async def test_models_whose_checkpoints_are_not_read_yet_are_asked_what_they_do():
    class Unread(FakeHost):
        async def default_task(self, principal: Any, name: str) -> str:
            self._models["late"] = ModelInfo(id="late", tasks=("feature-extraction",))
            return "feature-extraction"

    host = Unread([ModelInfo(id="late")], [FEATURE_EXTRACTION, TEXT_GENERATION], answer)
    async with served(host) as http:
        assert (await http.post("/embed", json={"inputs": "a"})).status_code == 200
