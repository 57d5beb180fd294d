"""Answers held to a schema and forced tool calls, asked for by the official client from a real model."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from modelport.testing.schemas import random_schema

from .conftest import Server

pytestmark = pytest.mark.real

ASK = [{"role": "user", "content": "Describe a person or a thing, as JSON."}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"The {name} of a city", "parameters": CITY}}
    for name in ("weather", "population")
]


@pytest.fixture
def client(real: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def form(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_fifty_random_schemas_hold_plain_and_streamed(real):
    draw = random.Random(11)
    schemas = [random_schema(draw) for _ in range(50)]

    async def ask(client: openai.AsyncOpenAI, schema: dict[str, Any], stream: bool) -> str:
        options: dict[str, Any] = {"model": "smollm2", "messages": ASK, "response_format": form(schema), "max_tokens": 1500}
        if not stream:
            answer = await client.chat.completions.create(**options)
            assert answer.choices[0].finish_reason == "stop"
            return answer.choices[0].message.content
        chunks = [chunk async for chunk in await client.chat.completions.create(stream=True, **options)]
        assert chunks[-1].choices[0].finish_reason == "stop"
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    async def everything() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0, timeout=300) as client:
            return await asyncio.gather(*(ask(client, schema, stream) for schema in schemas for stream in (False, True)))

    for index, text in enumerate(asyncio.run(everything())):
        jsonschema.validate(json.loads(text), schemas[index // 2])


def test_a_stream_says_what_the_plain_answer_says(client):
    options = {"model": "smollm2", "messages": ASK, "response_format": form(PERSON), "temperature": 0}
    plain = client.chat.completions.create(**options).choices[0].message.content
    streamed = client.chat.completions.create(stream=True, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == plain
    jsonschema.validate(json.loads(plain), PERSON)


def test_choices_and_regexes_as_vllm_names_them(client):
    options = {"model": "smollm2", "messages": [{"role": "user", "content": "Is fire hot?"}]}
    answer = client.chat.completions.create(**options, extra_body={"structured_outputs": {"choice": ["yes", "no"]}})
    assert answer.choices[0].message.content in ("yes", "no")
    answer = client.completions.create(model="smollm2", prompt="Call me at", extra_body={"guided_regex": r"\d{3}-\d{4}"})
    assert re.fullmatch(r"\d{3}-\d{4}", answer.choices[0].text)


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_that_cannot_be_held_is_a_400_that_says_why(client, stream):
    with pytest.raises(openai.BadRequestError, match="Invalid type: obj") as refused:
        client.chat.completions.create(model="smollm2", messages=ASK, response_format=form({"type": "obj"}), stream=stream)
    assert refused.value.param == "response_format"


def test_a_forced_call_goes_round(client):
    options = {"model": "smollm2-tools", "tools": TOOLS, "temperature": 0}
    turns: list[Any] = [{"role": "user", "content": "How is the weather in Paris?"}]
    message = client.chat.completions.create(messages=turns, tool_choice="required", **options).choices[0].message
    (call,) = message.tool_calls
    assert call.function.name in ("weather", "population")
    jsonschema.validate(json.loads(call.function.arguments), CITY)
    turns += [message, {"role": "tool", "tool_call_id": call.id, "content": "It rains."}]
    assert client.chat.completions.create(messages=turns, tool_choice="none", max_tokens=20, **options).choices[0].message.content


def test_a_named_call_streams_what_it_says_plain(client):
    options = {
        "model": "smollm2-tools",
        "messages": [{"role": "user", "content": "How many people live in Oslo?"}],
        "tools": TOOLS,
        "tool_choice": {"type": "function", "function": {"name": "population"}},
        "temperature": 0,
    }
    answer = client.chat.completions.create(**options).choices[0]
    (plain,) = answer.message.tool_calls
    pieces = [
        piece
        for chunk in client.chat.completions.create(stream=True, **options)
        for piece in chunk.choices[0].delta.tool_calls or ()
    ]
    assert (plain.function.name, pieces[0].function.name) == ("population", "population")
    assert "".join(piece.function.arguments or "" for piece in pieces) == plain.function.arguments
    jsonschema.validate(json.loads(plain.function.arguments), CITY)
