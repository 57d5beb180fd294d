"""What breaks, and what must go on working: killed and stuck workers, callers who leave, bad checkpoints."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import openai
import pytest

from modelport.testing.checkpoints import tiny_bert

from .conftest import CHAT, EMBED, Server

CONFIG = f"""
[models.smollm2]
source = "{CHAT}"
[models.minilm]
source = "{EMBED}"
"""
LONG = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 1500, "temperature": 0, "ignore_eos": True}


@pytest.fixture
def openai_client() -> Iterator[Callable[[Server], openai.OpenAI]]:
    """Makes official clients of servers and closes them after the test."""
    with ExitStack() as stack:

        def make(server: Server) -> openai.OpenAI:
            return stack.enter_context(openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0))

        yield make


@pytest.mark.real
def test_killed_worker_ends_its_stream_with_an_error_and_the_next_request_gets_a_new_one(demo, serve, openai_client):
    server = serve(CONFIG)
    client = openai_client(server)
    first = client.embeddings.create(model="minilm", input="before").data[0].embedding
    minilm = server.worker_of("minilm").pid

    stream = iter(client.completions.create(**{k: v for k, v in LONG.items() if k != "ignore_eos"}, stream=True))
    next(stream)
    killed = server.worker_of("smollm2")
    killed.send_signal(signal.SIGKILL)
    with pytest.raises(openai.APIError, match="smollm2"):
        for _ in stream:
            pass

    assert client.embeddings.create(model="minilm", input="before").data[0].embedding == first
    assert server.worker_of("minilm").pid == minilm
    assert client.completions.create(model="smollm2", prompt="Hello", max_tokens=2).choices[0].text
    assert server.worker_of("smollm2").pid != killed.pid


@pytest.mark.real
@pytest.mark.parametrize("stream", [True, False])
def test_caller_who_leaves_frees_the_slot(demo, serve, stream):
    server = serve(CONFIG)
    server.client.post("/v1/completions", json=LONG | {"max_tokens": 1}).raise_for_status()

    def running() -> float:
        return server.metric("modelport_slots_running", model="smollm2")

    leave = threading.Event()

    def call() -> None:
        with (
            httpx.Client(base_url=server.url, timeout=60) as client,
            client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as response,
        ):
            pieces = response.iter_bytes()  # held: a collected iterator closes the connection
            next(pieces)
            leave.wait(60)

    if stream:
        caller = threading.Thread(target=call)
        caller.start()
        server.until(lambda: running() == 1)
        leave.set()
        caller.join(30)
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=httpx.Timeout(2.0))
    server.until(lambda: running() == 0, 5)
    # the slot is free: the tokens that were not wanted were not made
    assert server.metric("modelport_generated_tokens_total", model="smollm2") < 1400


@pytest.mark.real
def test_generations_beyond_batch_and_queue_are_refused_with_the_time_to_come_back(demo, serve):
    server = serve(f'[limits]\nqueue_items = 2\n[models.smollm2]\nsource = "{CHAT}"\nmax_items = 2\n')
    server.client.post("/v1/completions", json=LONG | {"max_tokens": 1}).raise_for_status()
    answers: list[httpx.Response] = []

    def call() -> None:
        answers.append(httpx.post(f"{server.url}/v1/completions", json=LONG | {"max_tokens": 150}, timeout=120))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for number, caller in enumerate(callers, 1):
        caller.start()
        if number <= 4:  # two run and two wait, wherever they wait
            server.until(
                lambda number=number: (
                    server.metric("modelport_queue_running", model="smollm2")
                    + server.metric("modelport_queue_waiting", model="smollm2")
                    == number
                )
            )
    for caller in callers:
        caller.join(120)
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 4
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers if answer.status_code == 429)


@pytest.mark.real
def test_sigterm_lets_running_requests_finish(demo, serve, openai_client):
    server = serve(CONFIG)
    client = openai_client(server)
    stream = iter(client.completions.create(model="smollm2", prompt="Count: 1 2 3", max_tokens=40, temperature=0, stream=True))
    next(stream)
    server.process.send_signal(signal.SIGTERM)
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    assert server.process.wait(60) == 0


def test_bad_requests_are_answered_in_the_dialect_and_harm_nothing(demo, real):
    """Every fault has its own sentence; see the table in docs/errors.md."""
    chat = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    cases = [
        ("/v1/chat/completions", chat | {"model": "smollm"}, 404, "model_not_found", "smollm2"),
        ("/v1/embeddings", {"model": "smollm2", "input": "x"}, 400, None, "feature-extraction"),
        ("/v1/chat/completions", chat | {"model": "minilm"}, 400, None, "text-generation"),
        ("/v1/embeddings", {"model": "minilm", "input": ""}, 400, None, "empty"),
        ("/v1/embeddings", {"model": "minilm", "input": []}, 400, None, "input"),
        ("/v1/embeddings", {"model": "minilm", "input": "word " * 3000}, 400, "context_length_exceeded", "256"),
        ("/v1/completions", {"model": "smollm2", "prompt": "word " * 9000}, 400, "context_length_exceeded", "8192"),
        ("/v1/chat/completions", chat | {"temperature": "hot"}, 400, None, "temperature"),
        ("/v1/chat/completions", chat | {"messages": [{"role": "user"}, 3]}, 400, None, "messages.1"),
        ("/v1/chat/completions", chat | {"colour": 1}, 400, None, "colour"),
        ("/v1/completions", {"model": "smollm2", "prompt": "x", "suffix": "y"}, 400, None, "suffix"),
        ("/v1/chat/completions", b'{"model": ', 400, None, "JSON"),
    ]
    for path, body, status, code, words in cases:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = real.client.post(path, content=content, headers={"content-type": "application/json"})
        error = response.json()["error"]
        assert (response.status_code, set(error)) == (status, {"message", "type", "param", "code"}), (path, response.text)
        assert words in f"{error['param']} {error['message']}", response.text
        assert code is None or error["code"] == code, response.text
    assert real.client.post("/v1/chat/completions", json=chat).status_code == 200


def test_body_of_a_hundred_megabytes_is_refused_while_it_is_read(real):
    def body():
        yield b'{"model": "minilm", "input": "'
        for _ in range(100):
            yield b"x" * 1_000_000
        yield b'"}'

    try:
        response = real.client.post("/v1/embeddings", content=body(), headers={"content-type": "application/json"})
        assert response.status_code == 413
    except (httpx.WriteError, httpx.ReadError):
        pass  # the server closed the connection in mid-body, as it may
    assert real.client.post("/v1/embeddings", json={"model": "minilm", "input": "x"}).status_code == 200


def test_where_a_conversion_cannot_be_kept_the_next_backend_takes_over_and_the_record_says_why(tmp_path, serve):
    (tmp_path / "file").write_text("no folder can be made below a file")
    server = serve(f"""
    [backends.cpu]
    [backends.openvino]
    cache = "{tmp_path}/file/cache"
    [models.tiny]
    source = "{tiny_bert(tmp_path / "bert")}"
    backends = ["openvino", "cpu"]
    """)
    answer = server.client.post("/v1/embeddings", json={"model": "tiny", "input": "a good day"})
    assert answer.status_code == 200
    record = server.client.get("/v1/models/tiny/placement").json()
    assert record["backend"] == "cpu"
    assert record["attempts"][0]["backend"] == "openvino"
    assert "Make room, or set backends.openvino.cache" in record["attempts"][0]["error"]


def test_bad_checkpoints_are_refused_in_a_sentence_and_the_rest_serves(tmp_path, demo, serve):
    pickle_only, corrupt, no_config = (tmp_path / name for name in ("pickle", "corrupt", "empty"))
    for folder in (pickle_only, corrupt, no_config):
        folder.mkdir()
    for folder in (pickle_only, corrupt):
        (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (pickle_only / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (corrupt / "model.safetensors").write_bytes(b"\xff" * 64)
    (no_config / "model.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    folders = {"pickle": pickle_only, "corrupt": corrupt, "empty": no_config}
    models = "\n".join(f'[models.{name}]\nsource = "{folder}"' for name, folder in folders.items())
    server = serve(f'{models}\n[models.minilm]\nsource = "{EMBED}"\n')
    for name, words in {"pickle": "safetensors", "corrupt": "model.safetensors", "empty": "config.json"}.items():
        response = server.client.post("/v1/embeddings", json={"model": name, "input": "x"})
        assert response.status_code == 503, response.text
        assert words in response.json()["error"]["message"]
    assert server.client.post("/v1/embeddings", json={"model": "minilm", "input": "x"}).status_code == 200
