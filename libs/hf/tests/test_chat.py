"""Chat templates render as transformers renders them."""
# ruff: noqa: E501 — templates are kept as checkpoints have them

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelport.contract import ConfigurationError, InvalidRequest
from modelport.testing.checkpoints import write_byte_tokenizer
from modelport_hf.chat import ChatTemplates, load_chat_templates
from modelport_hf.tokenizer import load_tokenizer

CHATML = """{% for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}
{% set rest = messages %}{% set system = false %}{% endif %}{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}
{% if loop.index0 == 0 and system %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}
{% else %}{% set content = message['content'] %}{% endif %}
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
LLAMA3 = """{{- bos_token }}{% set ns = namespace(seen=false) %}
{%- if tools is not none %}
    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nRespond with {"name": ..., "parameters": ...}.\\n' }}
    {%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'skip' %}{% continue %}{% endif %}
    {%- if 'tool_calls' in message %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + message.tool_calls[0].function.name + '", ' }}
        {{- '"parameters": ' }}{{- message.tool_calls[0].function.arguments | tojson }}{{- '}<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
MISTRAL = """{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}[INST] {{ message.content }}[/INST]
{%- elif message.tool_calls is defined %}[TOOL_CALLS] [
{%- for call in message.tool_calls %}{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}{% endfor %}]
{%- else %} {{ message.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}{% set role = 'model' if message.role == 'assistant' else message.role %}
{{ '<start_of_turn>' + role }}
{% if message.content is string %}{{ message.content | trim }}{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}
<end_of_turn>
{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
TRAINED = """{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}
{% else %}U: {{ m.content }}{% endif %}
{% endfor %}{{ style | default('plain') }}"""

TALK = [
    {"role": "user", "content": 'Hi  there & <you> "é" '},
    {"role": "assistant", "content": " Hello. "},
    {"role": "user", "content": "And\nthen?"},
]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "é <b>", "parameters": {"type": "object"}}}]
CALLED = [
    TALK[0],
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}],
    },
]


def _both(folder: Path, template: Any, messages: list[Any], **options: Any) -> tuple[str, str]:
    """(ours, transformers')."""
    from transformers import PreTrainedTokenizerFast

    write_byte_tokenizer(folder, chat_template=template)
    theirs = PreTrainedTokenizerFast.from_pretrained(str(folder))
    templates = load_chat_templates(folder, load_tokenizer(folder).special)
    tools, extra = options.pop("tools", None), options.pop("options", {})
    reference = theirs.apply_chat_template(messages, tools=tools, tokenize=False, **options, **extra)
    return templates.render(messages, tools=tools, options=extra, **options), reference


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAMA3, MISTRAL, GEMMA, TRAINED])
@pytest.mark.parametrize("asked", [True, False])
def test_a_conversation_renders_as_in_transformers(tmp_path: Path, template: str, asked: bool) -> None:
    ours, theirs = _both(tmp_path, template, TALK, add_generation_prompt=asked)
    assert ours == theirs


@pytest.mark.parametrize("template", [LLAMA3, MISTRAL])
@pytest.mark.parametrize("messages", [TALK, CALLED])
def test_tools_render_as_in_transformers(tmp_path: Path, template: str, messages: list[Any]) -> None:
    ours, theirs = _both(tmp_path, template, messages, tools=TOOLS, add_generation_prompt=True)
    assert ours == theirs
    assert "weather" in ours


@pytest.mark.parametrize("template", [CHATML, LLAMA2, LLAMA3, MISTRAL, GEMMA])
def test_a_continued_message_ends_where_its_text_ends(tmp_path: Path, template: str) -> None:
    for final in ("The answer", "The answer "):
        messages = [TALK[0], {"role": "assistant", "content": final}]
        ours, theirs = _both(tmp_path, template, messages, continue_final_message=True, add_generation_prompt=False)
        assert ours == theirs
        assert ours.rstrip().endswith("The answer")


def test_parts_of_a_continued_message_are_continued(tmp_path: Path) -> None:
    messages = [TALK[0], {"role": "assistant", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}]
    ours, theirs = _both(tmp_path, GEMMA, messages, continue_final_message=True, add_generation_prompt=False)
    assert ours == theirs
    assert messages[1]["content"][1]["text"] == "two"  # type: ignore[index]


def test_options_reach_the_template(tmp_path: Path) -> None:
    ours, theirs = _both(tmp_path, TRAINED, TALK, add_generation_prompt=False, options={"style": "grand"})
    assert ours == theirs
    assert ours.endswith("grand")


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_named_templates_are_chosen_by_whether_there_are_tools(tmp_path: Path, tools: Any) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "with {{ tools | length }} tools"}]
    ours, theirs = _both(tmp_path, named, TALK, tools=tools, add_generation_prompt=False)
    assert ours == theirs == ("with 1 tools" if tools else "plain")


def test_a_template_file_wins_over_the_configuration(tmp_path: Path) -> None:
    write_byte_tokenizer(tmp_path, chat_template="from the configuration")
    (tmp_path / "chat_template.jinja").write_text("from the file")
    assert load_chat_templates(tmp_path, {}).render(TALK) == "from the file"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("for tools")
    assert load_chat_templates(tmp_path, {}).render(TALK, tools=TOOLS) == "for tools"


def test_an_old_chat_template_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert load_chat_templates(tmp_path, {}).render(TALK) == "old"


def test_a_model_without_template_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"no chat template.*Send `prompt`") as refused:
        load_chat_templates(tmp_path, {}).render(TALK)
    assert refused.value.param == "messages"


def test_what_a_template_raises_is_the_callers_mistake() -> None:
    templates = ChatTemplates({"default": GEMMA}, {"bos_token": "<s>"})
    with pytest.raises(InvalidRequest, match="System role not supported"):
        templates.render([{"role": "system", "content": "x"}])


def test_a_template_runs_in_a_sandbox() -> None:
    for attack in ("{{ messages.__class__.__mro__ }}", "{{ messages.append(1) }}"):
        with pytest.raises(InvalidRequest):
            ChatTemplates({"default": attack}, {}).render(TALK)


def test_reserved_options_are_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as refused:
        ChatTemplates({"default": CHATML}, {}).render(TALK, options={"messages": []})
    assert refused.value.param == "template_options.messages"


def test_a_broken_template_is_the_checkpoints_fault() -> None:
    with pytest.raises(ConfigurationError, match="syntax error in line 2"):
        ChatTemplates({"default": "a\n{% if %}"}, {})


def test_it_is_seen_whether_a_template_reads_parts_and_tools() -> None:
    seen = {
        source: (t.reads_parts(False), t.reads_tools())
        for source in (CHATML, GEMMA, LLAMA3)
        for t in [ChatTemplates({"default": source}, {})]
    }
    assert seen == {CHATML: (False, False), GEMMA: (True, False), LLAMA3: (False, True)}


def test_options_may_have_any_name_that_python_uses_itself() -> None:
    templates = ChatTemplates({"default": "{{ messages[0].content }}"}, {})
    assert templates.render([{"role": "user", "content": "x"}], options={"self": 1}) == "x"


def test_what_is_nested_too_deeply_for_a_template_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"a": deep}
    templates = ChatTemplates({"default": "{{ tools | tojson }}"}, {})
    with pytest.raises(InvalidRequest):
        templates.render([{"role": "user", "content": "x"}], tools=[deep])
