from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from modelport import contract
from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, ModelportError, NotFound
from modelport.contract.dialect import renamed
from modelport_api_openai import OpenAI, register_apis
from modelport_api_openai.audio import TranscriptionBody
from modelport_api_openai.chat import ChatBody
from modelport_api_openai.chat_wire import ChatMessage, PastToolCall
from modelport_api_openai.completions import CompletionBody
from modelport_api_openai.embeddings import EmbeddingsBody
from modelport_api_openai.rerank import RerankBody
from modelport_api_openai.sampling import StreamOptions

README = Path(__file__).parent.parent / "README.md"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("name", "status", "code", "raised"),
    [
        ("InvalidRequest", 400, None, openai.BadRequestError),
        ("UnsupportedParameter", 400, "unsupported_parameter", openai.BadRequestError),
        ("InputTooLong", 400, "context_length_exceeded", openai.BadRequestError),
        ("WrongTask", 400, "model_not_supported", openai.BadRequestError),
        ("PayloadTooLarge", 413, "request_too_large", openai.APIStatusError),
        ("Unauthenticated", 401, "invalid_api_key", openai.AuthenticationError),
        ("Forbidden", 403, "insufficient_permissions", openai.PermissionDeniedError),
        ("NotFound", 404, "model_not_found", openai.NotFoundError),
        ("Conflict", 409, "conflict", openai.ConflictError),
        ("Overloaded", 429, "rate_limit_exceeded", openai.RateLimitError),
        ("Unavailable", 503, "server_overloaded", openai.InternalServerError),
        ("DeadlineExceeded", 504, "deadline_exceeded", openai.InternalServerError),
        ("Cancelled", 499, "request_cancelled", openai.APIStatusError),
        ("ModelFailed", 500, "model_failed", openai.InternalServerError),
        ("DeviceFailed", 503, "device_failed", openai.InternalServerError),
        ("OutOfMemory", 503, "device_failed", openai.InternalServerError),
        ("NotNumbers", 503, "device_failed", openai.InternalServerError),
        ("ConfigurationError", 503, "model_misconfigured", openai.InternalServerError),
        ("ModelportError", 500, None, openai.InternalServerError),
    ],
)
async def test_every_kind_of_error_is_the_sdks_own_exception(sdk, host, name, status, code, raised):
    host.answers["text-generation"] = getattr(contract, name)("What, why, what to do.")
    with pytest.raises(raised) as caught:
        await sdk.chat.completions.create(**ASK)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert caught.value.body["message"] == "What, why, what to do."
    assert f"`{code}`" in README.read_text() or code is None


async def test_the_sdk_does_not_retry_what_would_fail_again(app, host):
    host.answers["text-generation"] = contract.DeadlineExceeded("Too late.")
    transport = httpx.AsyncClient(transport=httpx.ASGITransport(app))
    async with openai.AsyncOpenAI(base_url="http://test/v1", api_key="k", http_client=transport, max_retries=2) as sdk:
        with pytest.raises(openai.InternalServerError):
            await sdk.chat.completions.create(**ASK)
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    ("path", "param", "code"),
    [
        ("/v1/chat/completions", "model", "model_not_found"),
        ("/v1/models/org/absent", "model", "model_not_found"),
        ("/v2/rerank", "model", "model_not_found"),
        ("/v1/chat/complete", None, "unknown_url"),
        ("/v1/models/a/b/c", None, "unknown_url"),
    ],
)
def test_an_unknown_model_is_told_from_an_unknown_address(path, param, code):
    reply = OpenAI().error(NotFound("There is no such thing."), path)
    assert reply is not None
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["param"], error["code"]) == (404, param, code)


def test_an_error_without_a_param_keeps_its_words():
    reply = OpenAI().error(InvalidRequest("The body is empty."), "/v1/embeddings")
    assert reply is not None
    assert json.loads(reply.body) == {
        "error": {"message": "The body is empty.", "type": "invalid_request_error", "param": None, "code": None}
    }


def test_a_message_that_does_not_begin_with_the_field_gets_the_callers_name_in_front():
    error = renamed(InputTooLong("The text has 900 tokens.", param="inputs.1"), {"inputs": "input"})
    assert isinstance(error, InputTooLong)
    assert (error.param, error.message) == ("input.1", "input: The text has 900 tokens.")


def test_a_kind_of_tomorrow_is_a_server_error():
    class Surprise(ModelportError):
        kind = "surprise"

    reply = OpenAI().error(Surprise("Oh."), "/v1/models")
    assert reply is not None
    assert (reply.status, json.loads(reply.body)["error"]["type"]) == (500, "server_error")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model": "tiny"}', b'{"model": 3, "messages": []}'])
async def test_a_broken_body_is_a_400_in_the_dialect(http, body):
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v2/rerank"):
        response = await http.post(path, content=body)
        assert response.status_code == 400
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_an_unknown_model_is_a_404_with_the_nearest_name(sdk):
    with pytest.raises(openai.NotFoundError, match="Did you mean 'tiny'") as caught:
        await sdk.chat.completions.create(**ASK | {"model": "tinny"})
    assert caught.value.code == "model_not_found"


def test_options_are_refused_by_name():
    with pytest.raises(ConfigurationError, match=r"apis\.openai\.colour"):
        register_apis(options={"colour": "red"})


def test_readme_names_exactly_the_fields_that_are_ignored():
    section = README.read_text().split("## Ignored")[1].split("\n## ")[0]
    structs = (ChatBody, CompletionBody, TranscriptionBody, EmbeddingsBody, RerankBody, StreamOptions, ChatMessage, PastToolCall)
    ignored = {field.name for struct in structs for field in msgspec.structs.fields(struct) if field.type is Any}
    assert ignored == set(re.findall(r"`(\w+)`", section)) - {"stream_options"}


def test_the_handlers_use_nothing_that_litestar_will_remove():
    code = "from modelport_api_openai import OpenAI; OpenAI().routes()"
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning", "-c", code], check=True)


def test_importing_the_surface_imports_no_framework():
    code = "import sys, modelport_api_openai; print(sorted({'litestar', 'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_model_that_does_something_else_is_an_error_about_the_model():
    error = contract.WrongTask("The model 'tiny' does not do 'text-ranking'.", param="task")
    assert json.loads(OpenAI().error(error, "/v1/rerank").body)["error"]["param"] == "model"
