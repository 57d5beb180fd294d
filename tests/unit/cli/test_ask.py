"""A word on the command line becomes a task's request."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

from modelport.contract.errors import ConfigurationError
from modelport.core.cli.ask import input_text, request_body, with_options


def test_a_json_object_is_the_request() -> None:
    assert request_body('{"inputs": ["a", "b"]}', {"inputs"}) == {"inputs": ["a", "b"]}


@pytest.mark.parametrize(
    ("fields", "field"), [({"inputs", "truncate"}, "inputs"), ({"prompt", "seed"}, "prompt"), ({"text"}, "text")]
)
def test_a_text_goes_into_the_text_field(fields: set[str], field: str) -> None:
    assert request_body("hello", fields) == {field: "hello"}


def test_a_text_for_a_chat_model_is_a_message() -> None:
    assert request_body("hello", {"prompt", "messages"}, chat=True) == {"messages": [{"role": "user", "content": "hello"}]}


def test_broken_json_is_said_to_be_broken() -> None:
    with pytest.raises(ConfigurationError, match="looks like a JSON object, but is not one"):
        request_body('{"inputs": ', {"inputs"})


def test_a_task_without_a_text_field_asks_for_json_and_names_its_fields() -> None:
    with pytest.raises(ConfigurationError, match="its fields: image, threshold"):
        request_body("hello", {"threshold", "image"})


def test_options_are_json_where_they_can_be() -> None:
    body = with_options({"inputs": "x"}, ["dimensions=64", "truncate=true", "prompt_name=query"])

    assert body == {"inputs": "x", "dimensions": 64, "truncate": True, "prompt_name": "query"}


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="KEY=VALUE"):
        with_options({}, ["dimensions"])


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch):
    """Puts bytes on standard input."""

    def put(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))

    return put


def test_the_input_is_the_word_or_what_stdin_holds(stdin) -> None:
    stdin("grüße\n".encode())

    assert input_text("hello") == "hello"
    assert input_text("-") == "grüße\n"


@pytest.mark.parametrize(("content", "said"), [(b"", "stdin is empty"), (b"\xff\xfe", "not text in UTF-8")])
def test_an_empty_or_unreadable_stdin_is_one_sentence(stdin, content: bytes, said: str) -> None:
    stdin(content)

    with pytest.raises(ConfigurationError, match=said):
        input_text(None)
