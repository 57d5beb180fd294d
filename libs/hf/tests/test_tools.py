"""Tool calls are found in text, whole or in pieces."""
# ruff: noqa: E501 — outputs are kept as models write them

from __future__ import annotations

import json
from typing import Any

import pytest

from modelport_hf.tools import FORMATS, HermesParser, LlamaParser, MistralParser, ToolParser, tool_format


def _read(parser: ToolParser, text: str, size: int) -> tuple[str, list[tuple[str, Any]], list[str]]:
    """(text, calls as (name, arguments), ids)."""
    shown, calls, ids = "", {}, []
    found = [parser.push(text[at : at + size]) for at in range(0, len(text), size)] + [parser.finish()]
    for piece, deltas in found:
        shown += piece
        for delta in deltas:
            name, arguments = calls.get(delta.index, ("", ""))
            assert (delta.id is None) == (delta.name is None), "id and name come together, once"
            ids += [delta.id] if delta.id else []
            calls[delta.index] = (name + (delta.name or ""), arguments + delta.arguments)
    return shown, [(name, json.loads(arguments)) for name, arguments in calls.values()], ids


SIZES = pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])


@SIZES
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ('<tool_call>\n{"name": "f", "arguments": {"a": "}]\\"", "b": [1, {}]}}\n</tool_call>', "", [("f", {"a": '}]"', "b": [1, {}]})]),
        ('Sure.\n<tool_call>{"name":"f","arguments":{}}</tool_call>\n<tool_call>{"arguments":{"x":1},"name":"g"}</tool_call>',
         "Sure.\n", [("f", {}), ("g", {"x": 1})]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("f", {"a": 1})]),
        ("<tool_call>no</tool_call> x", "<tool_call>no</tool_call> x", []),
        ('<tool_call>{"city": 1}</tool_call>', '<tool_call>{"city": 1}</tool_call>', []),
        ('<tool_call>{"na', '<tool_call>{"na', []),
        ("a <b> <tool_", "a <b> <tool_", []),
    ],
)  # fmt: skip
def test_hermes_calls_are_found(size: int, text: str, shown: str, calls: list[Any]) -> None:
    assert _read(HermesParser(), text, size)[:2] == (shown, calls)


@SIZES
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]', "", [("f", {"a": 1}), ("g", {})]),
        (
            'Hi[TOOL_CALLS]get_x[ARGS]{"a": {"b": 2}}[TOOL_CALLS]g[CALL_ID]123456789[ARGS]{}',
            "Hi",
            [("get_x", {"a": {"b": 2}}), ("g", {})],
        ),
        ("Just [TEXT]", "Just [TEXT]", []),
    ],
)
def test_mistral_calls_are_found(size: int, text: str, shown: str, calls: list[Any]) -> None:
    got_shown, got, ids = _read(MistralParser(), text, size)
    assert (got_shown, got) == (shown, calls)
    assert all(len(made) == 9 and made.isalnum() for made in ids)


@SIZES
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        ('{"name": "f", "parameters": {"a": "b"}}', "", [("f", {"a": "b"})]),
        (
            '<|python_tag|>{"type": "function", "name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
            "",
            [("f", {}), ("g", {})],
        ),
        ('{"answer": 5}', '{"answer": 5}', []),
        ('{"name": "Bob", "age": 5}', '{"name": "Bob", "age": 5}', []),
        ("Hello {you}", "Hello {you}", []),
        ("", "", []),
    ],
)
def test_llama_calls_are_found_and_json_answers_stay_answers(size: int, text: str, shown: str, calls: list[Any]) -> None:
    assert _read(LlamaParser(["f", "g"]), text, size)[:2] == (shown, calls)


def test_arguments_are_passed_on_while_they_are_written() -> None:
    parser = HermesParser()
    _, first = parser.push('<tool_call>{"name": "f", "arguments": {"text": "on')
    _, second = parser.push("ce upon")
    assert [(delta.name, delta.arguments) for delta in first + second] == [("f", '{"text": "on'), (None, "ce upon")]


def test_the_form_of_calls_is_read_from_the_template() -> None:
    cases = {
        "{{ tools }} within <tool_call></tool_call> tags": "hermes",
        "<tool_call><function=name>": None,
        "[AVAILABLE_TOOLS]…[TOOL_CALLS]": "mistral",
        '<|start_header_id|> {"name": function name, "parameters": …}': "llama",
        "<|im_start|>": None,
    }
    assert {template: tool_format(template) for template in cases} == cases
    assert set(FORMATS) == {"hermes", "mistral", "llama"}
