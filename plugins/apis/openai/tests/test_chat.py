from __future__ import annotations

import pytest

from modelport.contract import Constraint, UnsupportedParameter
from modelport.tasks.text import GeneratedChoice, GenerationResult, TextToken, ToolCall, ToolFunction

PATH = "/v1/chat/completions"
ASK = [{"role": "user", "content": "Capital of France?"}]
BODY = {"model": "tiny", "messages": ASK}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLS = [ToolCall(id=f"call_{i}", function=ToolFunction("weather", f'{{"at": {i}}}')) for i in range(2)]


@pytest.fixture(autouse=True)
def paris(host, words):
    host.answers["text-generation"] = words("Paris", ".")


@pytest.fixture
def called(host):
    choice = GeneratedChoice(tool_calls=CALLS, finish_reason="tool_calls")
    host.answers["text-generation"] = GenerationResult(choices=[choice])


async def test_sdk_gets_an_answer(sdk):
    completion = await sdk.chat.completions.create(model="tiny", messages=ASK, temperature=0)
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    choice = completion.choices[0]
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "Paris.", None)
    assert choice.message.tool_calls is None
    assert completion.usage.total_tokens == 8


async def test_messages_reach_the_task_and_a_developer_is_the_system(http, host):
    parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    past = {"id": "c1", "type": "function", "index": 0, "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [past], "refusal": None, "annotations": [], "audio": None},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    ]
    response = await http.post(PATH, json={"model": "tiny", "messages": messages})
    assert response.status_code == 200, response.text
    system, user, assistant, tool = host.request.messages
    assert (system.role, system.content) == ("system", "Be brief.")
    assert (user.content, user.name) == (parts, "ann")
    assert assistant.tool_calls == [ToolCall(id="c1", function=ToolFunction("weather", "{}"))]
    assert (tool.role, tool.tool_call_id) == ("tool", "c1")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user"}, "content"),
        ({"role": "assistant"}, "content"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "narrator", "content": "x"}, "role"),
        ({"content": "x"}, "role"),
        ({"role": "user", "content": [{"text": "x"}]}, "content.0.type"),
        ({"role": "user", "content": "x", "mood": "good"}, "mood"),
    ],
)
async def test_a_message_that_lacks_something_is_refused_by_its_place(refused, message, param):
    assert (await refused(PATH, {"model": "tiny", "messages": [*ASK, message]}))["param"] == f"messages.1.{param}"


async def test_both_names_of_the_token_limit_work(http, host):
    await http.post(PATH, json=BODY | {"max_tokens": 5})
    await http.post(PATH, json=BODY | {"max_completion_tokens": 6})
    await http.post(PATH, json=BODY)
    assert [request.max_new_tokens for request in host.requests] == [5, 6, None]


async def test_additions_reach_the_task(http, host):
    extras = {"chat_template_kwargs": {"thinking": False}, "continue_final_message": True, "add_generation_prompt": False}
    assert (await http.post(PATH, json=BODY | extras)).status_code == 200
    assert host.request.template_options == {"thinking": False}
    assert host.request.continue_final_message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "news"}}}, "tool_choice.function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "text", "value": {}}}, "response_format.value"),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
        ({"modalities": ["audio"]}, "modalities.0"),
        ({"n": 0}, "n"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"functions": []}, "functions"),
    ],
)
async def test_a_field_that_cannot_work_is_refused_by_name(refused, change, param):
    error = await refused(PATH, BODY | change)
    assert error["param"] == param
    assert param in error["message"] or "none of the 'tools'" in error["message"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_forced_call_and_a_form_of_answer_exclude_each_other(refused, choice):
    form = {"type": "json_object"}
    error = await refused(PATH, BODY | {"tools": [WEATHER], "tool_choice": choice, "response_format": form})
    assert error["param"] == "tool_choice"
    assert "response_format" in error["message"]
    assert "constraint" not in error["message"]


async def test_a_forced_call_goes_with_text_and_an_optional_one_with_any_form(http):
    for choice, form in (("required", "text"), ("auto", "json_object")):
        body = BODY | {"tools": [WEATHER], "tool_choice": choice, "response_format": {"type": form}}
        assert (await http.post(PATH, json=body)).status_code == 200


async def test_ignored_fields_are_ignored(http):
    ignored = {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "modalities": ["text"]}
    cached = {"safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"}
    assert (await http.post(PATH, json=BODY | ignored | cached)).status_code == 200


@pytest.mark.parametrize(
    ("response_format", "constraint"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Constraint("json_object")),
        ({"type": "json_object", "value": {"type": "array"}}, Constraint("json_schema", '{"type":"array"}')),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "array"}}},
            Constraint("json_schema", '{"type":"array"}'),
        ),
    ],
)
async def test_response_format_becomes_a_constraint(http, host, response_format, constraint):
    assert (await http.post(PATH, json=BODY | {"response_format": response_format})).status_code == 200
    assert host.request.constraint == constraint


@pytest.mark.parametrize(
    ("sent", "constraint"),
    [
        ({"structured_outputs": {"json": {"type": "array"}}}, Constraint("json_schema", '{"type":"array"}')),
        ({"structured_outputs": {"json": '{"type": "null"}'}}, Constraint("json_schema", '{"type": "null"}')),
        ({"structured_outputs": {"json_object": True}}, Constraint("json_object")),
        ({"structured_outputs": {"regex": "a+"}}, Constraint("regex", "a+")),
        ({"structured_outputs": {"choice": ["yes", "no"]}}, Constraint("choice", '["yes","no"]')),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, Constraint("grammar", 'start: "a"')),
        ({"guided_json": {"type": "array"}}, Constraint("json_schema", '{"type":"array"}')),
        ({"guided_regex": "a+"}, Constraint("regex", "a+")),
        ({"guided_choice": ["yes"], "response_format": {"type": "text"}}, Constraint("choice", '["yes"]')),
        ({"guided_grammar": 'start: "a"'}, Constraint("grammar", 'start: "a"')),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/v1/completions"])
async def test_the_other_ways_to_constrain_an_answer(http, host, path, sent, constraint):
    body = BODY if path == PATH else {"model": "tiny", "prompt": "Hi"}
    assert (await http.post(path, json=body | sent)).status_code == 200
    assert host.request.constraint == constraint


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"backend": "x"}}, "structured_outputs.backend"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_regex"),
    ],
)
async def test_constraints_that_contradict_each_other_are_refused(refused, sent, param):
    assert (await refused(PATH, BODY | sent))["param"] == param


@pytest.mark.parametrize(
    ("sent", "field", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "constraint", "response_format"),
        ({"structured_outputs": {"regex": "a("}}, "constraint", "structured_outputs"),
        ({"guided_regex": "a("}, "constraint", "guided_regex"),
        ({"max_tokens": 5}, "max_new_tokens", "max_tokens"),
        ({"max_completion_tokens": 5}, "max_new_tokens", "max_completion_tokens"),
        ({}, "prompt", "messages"),
        ({"logprobs": True}, "logprobs", "logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, "logprobs", "top_logprobs"),
        ({"chat_template_kwargs": {"a": 1}}, "template_options", "chat_template_kwargs"),
    ],
)
async def test_a_parameter_nobody_honours_is_named_as_the_caller_wrote_it(refused, host, sent, field, param):
    host.answers["text-generation"] = UnsupportedParameter(f"'{field}' is not honoured here.", param=field)
    error = await refused(PATH, BODY | sent)
    assert (error["param"], error["message"]) == (param, f"'{param}' is not honoured here.")


async def test_logprobs_carry_bytes_and_the_likeliest_tokens(sdk, host):
    top = [TextToken(id=1, text="Paris", data=b"Paris", logprob=-0.1), TextToken(id=2, text="\ufffd", data=b"\xe2", logprob=-3)]
    chosen = TextToken(id=1, text="Paris", data=b"Paris", logprob=-0.1, top=top)
    host.answers["text-generation"] = GenerationResult(choices=[GeneratedChoice(text="Paris", tokens=[chosen])])
    completion = await sdk.chat.completions.create(model="tiny", messages=ASK, logprobs=True, top_logprobs=2)
    assert host.request.logprobs == 2
    content = completion.choices[0].logprobs.content[0]
    assert (content.token, content.logprob, content.bytes) == ("Paris", -0.1, list(b"Paris"))
    assert [(t.token, t.logprob, t.bytes) for t in content.top_logprobs] == [
        ("Paris", -0.1, list(b"Paris")),
        ("\ufffd", -3, [0xE2]),
    ]


# ------------------------------------------------------------------------------------------------------------- tools


async def test_tools_and_their_choice_reach_the_task(http, host):
    for choice in ("auto", "none", "required", {"type": "function", "function": {"name": "weather"}}, None):
        response = await http.post(PATH, json=BODY | {"tools": [WEATHER], "tool_choice": choice})
        assert response.status_code == 200, response.text
    assert [request.tool_choice for request in host.requests] == ["auto", "none", "required", "weather", None]
    assert all(request.tools == [WEATHER] for request in host.requests)


@pytest.mark.usefixtures("called")
async def test_sdk_gets_tool_calls_with_arguments_as_text(sdk):
    completion = await sdk.chat.completions.create(model="tiny", messages=ASK, tools=[WEATHER])
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert [(c.id, c.type, c.function.name, c.function.arguments) for c in choice.message.tool_calls] == [
        ("call_0", "function", "weather", '{"at": 0}'),
        ("call_1", "function", "weather", '{"at": 1}'),
    ]


@pytest.mark.usefixtures("called")
async def test_parallel_tool_calls_off_leaves_the_first_call(sdk):
    completion = await sdk.chat.completions.create(model="tiny", messages=ASK, tools=[WEATHER], parallel_tool_calls=False)
    assert [call.id for call in completion.choices[0].message.tool_calls] == ["call_0"]


async def test_reasoning_stands_beside_the_answer(http, host):
    choice = GeneratedChoice(text="Paris", reasoning="France, so…")
    host.answers["text-generation"] = GenerationResult(choices=[choice])
    message = (await http.post(PATH, json=BODY)).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Paris", "France, so…")
