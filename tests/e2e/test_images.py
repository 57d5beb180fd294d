"""Conversations with images over HTTP, asked with OpenAI's own client, of a model that sees and of one that does not."""

from __future__ import annotations

import base64
import io

import openai
import pytest
from PIL import Image

from modelport.testing.checkpoints import tiny_llama, tiny_llava

from .conftest import Server


def data_url(colour: str, size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").point(lambda v: v if colour == "light" else 255 - v).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def seen(*urls: str, text: str = "what is this", **more: str) -> list[dict]:
    parts = [{"type": "image_url", "image_url": {"url": url, **more}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("images")
    sees, reads = tiny_llava(folder / "llava"), tiny_llama(folder / "llama")
    made = Server(folder, f"""
    [models.sees]
    source = "{sees}"
    backend = "cpu"
    [models.reads]
    source = "{reads}"
    backend = "cpu"
    """)  # fmt: skip
    yield made
    made.stop()


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


LIGHT, DARK = data_url("light", (61, 47)), data_url("dark", (30, 90))
SHORT = {"max_tokens": 8, "temperature": 0}


def test_an_image_is_answered_whole_and_in_pieces(client, server):
    whole = client.chat.completions.create(model="sees", messages=seen(LIGHT, detail="low"), **SHORT)
    pieces = list(
        client.chat.completions.create(
            model="sees", messages=seen(LIGHT), stream=True, stream_options={"include_usage": True}, **SHORT
        )
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    other = client.chat.completions.create(model="sees", messages=seen(DARK), **SHORT)

    assert whole.choices[0].message.content == text
    assert whole.choices[0].message.content != other.choices[0].message.content, "it does not look"
    assert whole.usage.prompt_tokens == pieces[-1].usage.prompt_tokens > 16, "an image is 16 tokens of this model"
    record = server.client.get("/v1/models/sees/placement").json()
    assert "prompts of more than text that cannot be stepped" in str(record)


def test_turns_without_images_are_answered_too(client):
    plain = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]
    answer = client.chat.completions.create(model="sees", messages=plain, **SHORT)
    later = [*seen(LIGHT), {"role": "assistant", "content": "a ramp"}, {"role": "user", "content": "and?"}]
    assert answer.choices[0].message.content
    assert client.chat.completions.create(model="sees", messages=later, **SHORT).choices[0].message.content


@pytest.mark.parametrize(
    ("model", "messages", "param", "why"),
    [
        ("reads", seen(LIGHT), "messages.0.content.1", "'reads' takes text only, and a part of a message is an image"),
        ("sees", seen("http://example.com/cat.png"), "messages.0.content.1.image_url.url", "fetches none"),
        ("sees", seen(LIGHT[:-80]), "messages.0.content.1.image_url", "cannot be decoded"),
        ("sees", seen(text="a <image>"), "messages.0.content", "stands for an image"),
        (
            "sees",
            [{"role": "user", "content": [{"type": "hologram", "hologram": {}}]}],
            "messages.0.content.0",
            "takes texts and images, and this part is of the type 'hologram'",
        ),
        (
            "reads",
            [{"role": "user", "content": [{"type": "hologram", "hologram": {}}]}],
            "messages.0.content.0",
            "takes text only, and a part of a message is of the type 'hologram'",
        ),
    ],
)
def test_what_a_model_does_not_take_is_a_400_that_says_so(client, model, messages, param, why):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=model, messages=messages, **SHORT)
    assert refused.value.body["param"] == param
    assert why in refused.value.body["message"]


def test_a_client_that_leaves_ends_its_generation(client, server):
    more = {"max_tokens": 400, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(model="sees", messages=seen(LIGHT), stream=True, **more) as stream:
        next(stream)
    server.until(lambda: server.metric("modelport_requests_total", model="sees", status="cancelled") >= 1)
    server.until(lambda: server.metric("modelport_slots_running", model="sees") == 0)


def test_the_same_model_describes_and_answers(server):
    picture = {"data": LIGHT.partition(",")[2]}
    short = {"generate_parameters": {"max_new_tokens": 8}}
    described = server.client.post("/v1/infer/sees", json={"task": "image-to-text", "inputs": picture, **short})
    asked = {"task": "visual-question-answering", "image": picture, "question": "what"}
    answered = server.client.post("/v1/infer/sees", json=asked)
    assert described.status_code == answered.status_code == 200, (described.text, answered.text)
    assert described.json()["result"]["results"][0]["generated_text"]
    assert answered.json()["result"]["results"][0]["answer"]
