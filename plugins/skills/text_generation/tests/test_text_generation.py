"""What a session asks of an engine, and what it makes of the answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelport.contract import (
    Constraint,
    GenerateEvent,
    InputTooLong,
    InvalidRequest,
    Limits,
    ModelCard,
    ModelFailed,
    TokenLogprob,
    UnsupportedParameter,
)
from modelport.tasks.text import GeneratedChoice, GenerationRequest, Message, ToolCall, ToolFunction
from modelport_hf.generation import GenerationSession
from modelport_skill_text_generation import TextGeneration

DEMO = Path(os.environ.get("MODELPORT_DEMO_DIR", "~/.cache/modelport/demo")).expanduser() / "smollm2-135m-instruct"
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}}}]
HERMES = (
    "{% if tools %}{{ tools | tojson }} answer in <tool_call></tool_call>\n{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments.city }}{% endif %}{{ '\n' }}"
    "{% endfor %}assistant: "
)


def _say(content: Any = "Hi", role: str = "user", **fields: Any) -> Message:
    return Message(role=role, content=content, **fields)


# ------------------------------------------------------------------------------------------------------------ the text


@pytest.mark.parametrize("size", [1, 3])
async def test_a_text_is_streamed_and_no_character_is_cut(bench: Any, size: int) -> None:
    request = GenerationRequest(prompt="x", max_new_tokens=99)
    deltas, _ = await bench.deltas(request, bench.script("Grüße 🎉!", size=size))
    assert "".join(delta.text for delta in deltas) == "Grüße 🎉!"
    assert not any("\ufffd" in delta.text for delta in deltas)
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]


async def test_a_plain_call_gives_one_delta_per_choice(bench: Any) -> None:
    events = [event for pair in zip(bench.script("one"), bench.script("two", index=1), strict=True) for event in pair]
    deltas, run = await bench.deltas(GenerationRequest(prompt="x", n=2), events, stream=False)
    assert sorted((delta.index, delta.text, delta.finish_reason) for delta in deltas) == [(0, "one", "stop"), (1, "two", "stop")]
    assert run.requests[0].n == 2


async def test_length_ends_with_what_was_held_back(bench: Any) -> None:
    events = [*bench.script("ab ST", finish=None)[:-1], GenerateEvent(id=1, tokens=(bench.ids("é")[0],), finish="length")]
    result = await bench.answer(GenerationRequest(prompt="x", stop=["STOP"]), events)
    assert (result.choices[0].text, result.choices[0].finish_reason) == ("ab ST\ufffd", "length")


async def test_a_stop_string_is_never_shown_and_ends_its_choice_alone(bench: Any) -> None:
    events = [event for pair in zip(bench.script("go END no"), bench.script("all of it", index=1), strict=True) for event in pair]
    request = GenerationRequest(prompt="x", n=2, stop=["END", "zzz"])
    deltas, run = await bench.deltas(request, events)
    assert run.generation.stopped == [0]
    result = await bench.answer(request, events)
    assert result.choices == [
        GeneratedChoice(index=0, text="go ", finish_reason="stop", stop_sequence="END"),
        GeneratedChoice(index=1, text="all of it", finish_reason="stop"),
    ]
    assert not any("E" in delta.text for delta in deltas if delta.index == 0)


async def test_echo_puts_the_prompt_first_in_every_choice(bench: Any) -> None:
    events = [*bench.script("b"), *bench.script("c", index=1)]
    result = await bench.answer(GenerationRequest(prompt="a ", echo=True, n=2), events)
    assert [choice.text for choice in result.choices] == ["a b", "a c"]
    result = await bench.answer(GenerationRequest(prompt=bench.ids("ids "), echo=True), bench.script("b"))
    assert result.choices[0].text == "ids b"


async def test_no_tokens_can_be_asked_for(bench: Any) -> None:
    deltas, run = await bench.deltas(GenerationRequest(prompt="ab", echo=True, max_new_tokens=0), ())
    assert [(delta.text, delta.finish_reason) for delta in deltas] == [("ab", "length")]
    assert run.generation.stopped == [0]
    first = GenerateEvent(
        id=1, tokens=tuple(bench.ids("z")), finish="length", prompt_logprobs=((TokenLogprob(bench.ids("b")[0], -1.0),),)
    )
    scored, run = await bench.deltas(GenerationRequest(prompt="ab", echo=True, max_new_tokens=0, prompt_logprobs=0), [first])
    assert [delta.text for delta in scored] == ["ab"]
    assert [(token.text, token.logprob) for token in scored[0].prompt_tokens or ()] == [("a", None), ("b", -1.0)]


async def test_a_failed_choice_fails_the_request_with_the_engines_sentence(bench: Any) -> None:
    with pytest.raises(ModelFailed, match="out of memory"):
        await bench.deltas(GenerationRequest(prompt="x"), [GenerateEvent(id=1, finish="error", error="out of memory")])


# ---------------------------------------------------------------------------------------------------------- logprobs


async def test_tokens_come_with_bytes_and_alternatives(bench: Any) -> None:
    accent = bench.ids("é")
    events = [
        GenerateEvent(id=1, tokens=(token,), logprobs=(-0.5,), top_logprobs=((TokenLogprob(token, -0.5), TokenLogprob(9, -2.0)),))
        for token in accent
    ]
    result = await bench.answer(GenerationRequest(prompt="x", logprobs=2), [*events, GenerateEvent(id=1, finish="stop")])
    tokens = result.choices[0].tokens or []
    assert b"".join(token.data for token in tokens) == "é".encode()
    assert [token.text for token in tokens] == ["\ufffd", "\ufffd"]
    assert [(token.id, token.logprob, len(token.top or ())) for token in tokens] == [(accent[0], -0.5, 2), (accent[1], -0.5, 2)]


async def test_tokens_behind_a_stop_string_are_dropped(bench: Any) -> None:
    events = [
        GenerateEvent(id=1, tokens=event.tokens, logprobs=(-1.0,) * len(event.tokens), finish=event.finish)
        for event in bench.script("go END", size=2)
    ]
    result = await bench.answer(GenerationRequest(prompt="x", logprobs=0, stop=["END"]), events)
    assert "".join(token.text for token in result.choices[0].tokens or ()) == "go " == result.choices[0].text


# ------------------------------------------------------------------------------------------------- what is asked of it


async def test_a_prompt_is_tokenised_and_sampling_is_passed_on(bench: Any) -> None:
    request = GenerationRequest(
        prompt="héllo",
        max_new_tokens=5,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        logit_bias={3: -1.0},
        presence_penalty=0.5,
        cache_salt="s",
    )
    _, run = await bench.deltas(request, bench.script("x"))
    (asked,) = run.requests
    assert asked.inputs["input_ids"].tolist() == bench.ids("héllo")
    params = asked.params
    assert (params.max_new_tokens, params.temperature, params.top_p, params.seed, params.do_sample) == (5, 0.5, 0.9, 7, True)
    assert (params.logit_bias, params.presence_penalty, asked.cache_salt) == ({3: -1.0}, 0.5, "s")


async def test_a_temperature_too_small_to_divide_by_is_greedy(bench: Any) -> None:
    for temperature in (1e-6, 1e-320):
        request = GenerationRequest(prompt="x", temperature=temperature, do_sample=True)
        _, run = await bench.deltas(request, bench.script("y"))
        assert (run.requests[0].params.do_sample, run.requests[0].params.temperature) == (False, None)


async def test_what_asks_for_nothing_needs_nothing_of_the_engine(bench: Any) -> None:
    neutral = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {}, "num_beams": 1, "ignore_eos": False}
    _, run = await bench.deltas(GenerationRequest(prompt="x", max_new_tokens=3, **neutral), bench.script("x"))
    assert run.requests[0].needs() == {"max_new_tokens"}


@pytest.mark.parametrize(
    ("fields", "do_sample"),
    [
        ({}, None),
        ({"temperature": 0.0}, False),
        ({"temperature": 1.0}, True),
        ({"top_k": 5}, True),
        ({"do_sample": False, "temperature": 1.0}, False),
    ],
)
async def test_a_temperature_or_a_filter_asks_for_sampling(bench: Any, fields: dict[str, Any], do_sample: bool | None) -> None:
    _, run = await bench.deltas(GenerationRequest(prompt="x", **fields), bench.script("x"))
    assert run.requests[0].params.do_sample is do_sample


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "messages": [_say()]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [10**6]}, "prompt.0"),
        ({"messages": []}, "messages"),
        ({"messages": [_say(role="")]}, "messages.0.role"),
        ({"messages": [_say([{"type": "image_url", "image_url": {}}])]}, "messages.0.content.0"),
        ({"prompt": "x", "temperature": -1.0}, "temperature"),
        ({"prompt": "x", "temperature": float("nan")}, "temperature"),
        ({"prompt": "x", "top_p": 0.0}, "top_p"),
        ({"prompt": "x", "top_p": 1.5}, "top_p"),
        ({"prompt": "x", "n": 0}, "n"),
        ({"prompt": "x", "max_new_tokens": -1}, "max_new_tokens"),
        ({"prompt": "x", "frequency_penalty": 3.0}, "frequency_penalty"),
        ({"prompt": "x", "stop": ["a", ""]}, "stop.1"),
        ({"prompt": "x", "logit_bias": {99999: 1.0}}, "logit_bias"),
        ({"prompt": "x", "tools": TOOLS}, "tools"),
        ({"prompt": "x", "continue_final_message": True}, "continue_final_message"),
        ({"messages": [_say()], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [_say()], "template_options": {"tools": 1}}, "template_options.tools"),
    ],
)
async def test_bad_requests_are_refused_by_field(bench: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await bench.deltas(GenerationRequest(**fields), ())
    assert refused.value.param == param


# --------------------------------------------------------------------------------------------------------- the context


async def test_output_may_fill_the_context(bench: Any) -> None:
    _, run = await bench.deltas(GenerationRequest(prompt="x" * 12), bench.script("x"))
    assert run.requests[0].params.max_new_tokens == 500
    _, run = await bench.deltas(GenerationRequest(prompt="x" * 12, max_new_tokens=500), bench.script("x"))
    assert run.requests[0].params.max_new_tokens == 500


async def test_what_does_not_fit_is_refused_with_the_numbers(bench: Any) -> None:
    with pytest.raises(InputTooLong, match=r"has 512 tokens, and this model's context holds 512") as refused:
        await bench.deltas(GenerationRequest(prompt="x" * 512), ())
    assert refused.value.param == "prompt"
    with pytest.raises(
        InputTooLong, match=r"holds 512 tokens, and 513 are asked for: 12 of the prompt and 501 of output.*at most 500"
    ):
        await bench.deltas(GenerationRequest(prompt="x" * 12, max_new_tokens=501), ())
    with pytest.raises(InputTooLong) as refused:
        await bench.deltas(GenerationRequest(messages=[_say("x" * 600)]), ())
    assert refused.value.param == "messages"


async def test_a_long_prompt_is_cut_at_its_left_when_asked(bench: Any) -> None:
    text = "a" * 400 + "b" * 300
    for max_new_tokens, kept in ((None, 511), (12, 500)):
        _, run = await bench.deltas(
            GenerationRequest(prompt=text, truncate=True, max_new_tokens=max_new_tokens), bench.script("x")
        )
        assert run.requests[0].inputs["input_ids"].tolist() == bench.ids(text)[-kept:]


def test_the_runners_limit_counts_too(bench: Any) -> None:
    assert GenerationSession(msgspec.structs.replace(bench.context, limits=Limits(max_length=64))).limit == 64


# --------------------------------------------------------------------------------------------------------------- chat


async def test_messages_go_through_the_template_with_its_own_special_tokens(bench: Any) -> None:
    _, run = await bench.deltas(GenerationRequest(messages=[_say("Be kind.", "system"), _say("Hi")]), bench.script("x"))
    text = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert run.requests[0].inputs["input_ids"].tolist() == bench.ids(text)


async def test_parts_are_joined_for_a_template_that_wants_text(bench: Any) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    _, run = await bench.deltas(GenerationRequest(messages=[_say(parts)]), bench.script("x"))
    assert "one\ntwo" in bench.session.tokenizer.decode(run.requests[0].inputs["input_ids"])


async def test_a_final_message_is_continued(bench: Any) -> None:
    request = GenerationRequest(messages=[_say(), _say("The answer", "assistant")], continue_final_message=True)
    _, run = await bench.deltas(request, bench.script("x"))
    assert bench.session.tokenizer.decode(run.requests[0].inputs["input_ids"]).endswith("The answer")


async def test_a_model_without_template_says_what_to_do(make_bench: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"no chat template.*Send `prompt`"):
        await make_bench(template=None).deltas(GenerationRequest(messages=[_say()]), ())


async def test_thoughts_are_divided_from_the_answer(make_bench: Any) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{# strips </think> of earlier turns #}"
    bench = make_bench(template=template)
    result = await bench.answer(GenerationRequest(messages=[_say()]), bench.script("<think>hm</think>\n\nYes"))
    assert (result.choices[0].reasoning, result.choices[0].text) == ("hm", "Yes")
    plain = await bench.answer(GenerationRequest(prompt="x"), bench.script("<think>hm</think>"))
    assert plain.choices[0].text == "<think>hm</think>"


# --------------------------------------------------------------------------------------------------------------- tools


async def test_tools_are_rendered_and_calls_are_parsed(make_bench: Any) -> None:
    bench = make_bench(template=HERMES)
    said = 'Let me see. <tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'
    request = GenerationRequest(messages=[_say()], tools=TOOLS)
    result = await bench.answer(request, bench.script(said))
    (choice,) = result.choices
    assert choice.text == "Let me see. "
    assert choice.tool_calls == [ToolCall(id="id", function=ToolFunction("weather", '{"city": "Bonn"}'))]
    assert choice.finish_reason == "tool_calls"
    deltas, run = await bench.deltas(request, bench.script(said))
    assert "weather" in bench.session.tokenizer.decode(run.requests[0].inputs["input_ids"])
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    assert len(pieces) > 3, "arguments are streamed"
    assert [piece.name for piece in pieces if piece.id] == ["weather"]


async def test_a_call_comes_back_to_the_template_as_an_object(make_bench: Any) -> None:
    bench = make_bench(template=HERMES)
    call = ToolCall(id="1", function=ToolFunction("weather", '{"city": "Bonn"}'))
    messages = [_say(), _say(None, "assistant", tool_calls=[call]), _say("sunny", "tool", tool_call_id="1")]
    _, run = await bench.deltas(GenerationRequest(messages=messages, tools=TOOLS), bench.script("x"))
    assert "assistant: Bonn\n" in bench.session.tokenizer.decode(run.requests[0].inputs["input_ids"])


@pytest.mark.parametrize("arguments", ["[" * 100_000, "9" * 5000, '{"a": "\\ud800"}', "no JSON"])
async def test_arguments_that_are_no_json_stay_text(make_bench: Any, arguments: str) -> None:
    bench = make_bench(template="{{ messages[0].tool_calls[0].function.arguments }}", limit=None)
    call = ToolCall(id="1", function=ToolFunction("weather", arguments))
    _, run = await bench.deltas(GenerationRequest(messages=[_say(None, "assistant", tool_calls=[call])]), bench.script("x"))
    assert bench.session.tokenizer.decode(run.requests[0].inputs["input_ids"]) == arguments


async def test_tool_choice_none_leaves_the_tools_out(make_bench: Any) -> None:
    bench = make_bench(template=HERMES)
    said = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    result = await bench.answer(GenerationRequest(messages=[_say()], tools=TOOLS, tool_choice="none"), bench.script(said))
    assert result.choices[0].text == said


async def test_a_required_call_is_a_constraint(make_bench: Any) -> None:
    bench = make_bench(template=HERMES)
    request = GenerationRequest(messages=[_say()], tools=TOOLS, tool_choice="weather")
    events = bench.script('{"name": "weather", "arguments": {"city": "Bonn"}}')
    _, run = await bench.deltas(request, events)
    constraint = run.requests[0].constraint
    assert constraint.kind == "json_schema"
    assert json.loads(constraint.text)["properties"]["name"] == {"const": "weather"}
    result = await bench.answer(request, events)
    assert (result.choices[0].text, (result.choices[0].tool_calls or [])[0].function.name) == ("", "weather")
    bench.session = GenerationSession(msgspec.structs.replace(bench.context, limits=Limits()))
    with pytest.raises(UnsupportedParameter, match="Send tool_choice auto") as refused:
        await bench.deltas(request, ())
    assert refused.value.param == "tool_choice"
    assert "constrain" not in refused.value.message


async def test_a_schema_of_a_tool_that_cannot_be_held_is_named_by_its_field(make_bench: Any) -> None:
    bench = make_bench(template=HERMES)
    request = GenerationRequest(messages=[_say()], tools=TOOLS, tool_choice="required")
    why = InvalidRequest("output cannot be held to the JSON schema.", param="constraint")
    with pytest.raises(InvalidRequest, match="tools") as refused:
        await bench.deltas(request, [why])
    assert refused.value.param == "tools"


async def test_tools_are_refused_where_the_template_does_not_know_them(bench: Any, make_bench: Any) -> None:
    with pytest.raises(UnsupportedParameter, match="does not know tools"):
        await bench.deltas(GenerationRequest(messages=[_say()], tools=TOOLS), ())
    unknown = make_bench(template="{{ tools }}{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(UnsupportedParameter, match=r"options\.tool_parser"):
        await unknown.deltas(GenerationRequest(messages=[_say()], tools=TOOLS), ())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools.0.function.name"),
        ({"tools": TOOLS, "tool_choice": "other"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "required", "constraint": Constraint("regex", "a")}, "tool_choice"),
    ],
)
async def test_bad_tools_are_refused_by_field(make_bench: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await make_bench(template=HERMES).deltas(GenerationRequest(messages=[_say()], **fields), ())
    assert refused.value.param == param


# ------------------------------------------------------------------------------------------------------ claim, imports


@pytest.mark.parametrize(
    ("architecture", "files", "score"),
    [
        ("LlamaForCausalLM", ("tokenizer.json",), 90),
        ("GPT2LMHeadModel", ("vocab.json",), 90),
        ("LlamaForCausalLM", (), None),
        ("BertModel", ("tokenizer.json",), None),
        ("Phi4ForCausalLM", ("tokenizer.json", "preprocessor_config.json"), 10),
    ],
)
def test_causal_language_models_are_claimed(architecture: str, files: tuple[str, ...], score: int | None) -> None:
    claim = TextGeneration().claim(ModelCard(name="m", architectures=(architecture,), files=files))
    assert (claim.score if claim else None) == score


def _modules_after(code: str) -> str:
    check = "print([n for n in ('torch', 'transformers', 'tokenizers', 'jinja2') if n in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {check}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_plugin_imports_nothing_heavy() -> None:
    assert _modules_after("import modelport_skill_text_generation as m; m.register_skills()") == "[]"


@pytest.mark.real
def test_a_session_on_the_demo_model_needs_no_torch() -> None:
    if not DEMO.is_dir():
        pytest.skip(f"needs {DEMO}: run `modelport demo`")
    code = (
        "from pathlib import Path; from modelport.contract import *; from modelport.tasks.text import *;"
        "from modelport_skill_text_generation import TextGeneration;"
        "skill = TextGeneration(); card = ModelCard(name='m', architectures=('LlamaForCausalLM',), context_length=8192);"
        "session = skill.session(SessionContext(card=card, task='text-generation', tasks=('text-generation',),"
        f" program=skill.programs(card)['text-generation'], checkpoints={{'main': Path({str(DEMO)!r})}}));"
        "prompt = session.prompter(GenerationRequest(messages=[Message(role='user', content='The capital of France?')]));"
        "assert prompt.text.endswith('<|im_start|>assistant\\n') and len(prompt.ids) > 10"
    )
    assert _modules_after(code) == "['tokenizers', 'jinja2']"
