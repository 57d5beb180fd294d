from __future__ import annotations

import pytest

from modelport.contract import InvalidRequest, decode_body
from modelport.tasks.text import EmbeddingRequest, GenerationRequest


def test_a_good_body_is_its_struct():
    assert decode_body(b'{"inputs": ["a"]}', EmbeddingRequest) == EmbeddingRequest(inputs=["a"])


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        (b" ", "The body is empty. Send JSON, with `Content-Type: application/json`.", None),
        (b"{", "The body is not valid JSON: Input data was truncated.", None),
        (b'{"prompt": "a" "n": 1}', "The body is not valid JSON: expected ',' or '}' (byte 15).", None),
        (b"\xff", "The body is not valid JSON: invalid character (byte 0).", None),
        (b"[]", "The body is wrong: expected object, got array.", None),
        (b'{"n": "x"}', "The field 'n' is wrong: expected int, got str.", "n"),
        (b'{"messages": [{"role": 1}]}', "The field 'messages.0.role' is wrong: expected str, got int.", "messages.0.role"),
        (b'{"messages": [{}]}', "The field 'messages.0.role' is required.", "messages.0.role"),
        (b'{"temprature": 1}', "Unknown field 'temprature'.", "temprature"),
        (b'{"logit_bias": {"1": "x"}}', "The field 'logit_bias' is wrong: expected float, got str.", "logit_bias"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong_and_where(body, message, param):
    with pytest.raises(InvalidRequest) as caught:
        decode_body(body, GenerationRequest)
    assert (caught.value.message, caught.value.param) == (message, param)


def test_a_prefix_leads_the_path():
    with pytest.raises(InvalidRequest) as caught:
        decode_body(b'{"x": 1}', EmbeddingRequest, "request")
    assert caught.value.param == "request.x"


def test_a_body_that_is_nested_without_end_is_refused():
    with pytest.raises(InvalidRequest):
        decode_body(b"[" * 1_000_000, list)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"prompt": "a", "seed": 100000000000000000000}', "seed"),
        (b'{"prompt": "a", "seed": -100000000000000000000}', "seed"),
        (b'{"prompt": [1, 100000000000000000000]}', "prompt.1"),
        (b'{"prompt": "a", "logit_bias": {"100000000000000000000": 1}}', "logit_bias"),
        (b'{"messages": [], "template_options": {"x": [100000000000000000000]}}', "template_options.x.0"),
    ],
)
def test_an_integer_that_no_process_can_be_sent_is_refused_by_its_field(body, param):
    with pytest.raises(InvalidRequest, match="64 bits") as caught:
        decode_body(body, GenerationRequest)
    assert caught.value.param == param


def test_long_digits_in_texts_are_no_integers():
    assert decode_body(b'{"prompt": "100000000000000000000"}', GenerationRequest).prompt == "1" + "0" * 20
