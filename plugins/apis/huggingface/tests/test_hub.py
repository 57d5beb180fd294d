"""The Inference API's routes beyond single tasks: paths, bodies, which task is meant, errors, chat, and the short routes."""

from __future__ import annotations

import base64
from importlib.metadata import version
from typing import Any

import huggingface_hub
import msgspec
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError, TextGenerationError, ValidationError

from modelport.contract import ConfigurationError, InputTooLong, ModelFailed, ModelInfo, NotFound, Unavailable
from modelport.tasks import text2text, tokens, vision
from modelport.tasks.text import (
    FEATURE_EXTRACTION,
    TEXT_CLASSIFICATION,
    TEXT_GENERATION,
    TEXT_RANKING,
    EmbeddingResult,
    LabelScore,
)
from modelport_api_huggingface import HuggingFace

from .fakes import MODELS, answer, fake_host, official, served
from .made import TASKS, Made

IMAGE = b"\x89PNG..."
LABELS = vision.LabelsResult(results=[LabelScore("cat", 0.75)])
MASKS = tokens.MaskResult(results=[[[tokens.FilledMask(0.9, 5, "cat", "a cat")], [tokens.FilledMask(0.8, 6, "dog", "a dog")]]])


@pytest.fixture
async def http():
    async with served(fake_host()) as client:
        yield client


@pytest.fixture
async def client(http):
    async with official(http, "/models/org/chat") as made:
        yield made


# --------------------------------------------------------------------------------------------------- text generation


async def test_the_client_generates_plainly_with_details_and_as_a_stream(client):
    assert await client.text_generation("Say", max_new_tokens=4) == "Hello"
    found = await client.text_generation("Say", details=True)
    assert (found.generated_text, found.details.finish_reason) == ("Hello", "eos_token")
    pieces = [piece async for piece in await client.text_generation("Say", stream=True)]
    assert "".join(pieces) == "Hello"
    *_, last = [event async for event in await client.text_generation("Say", stream=True, details=True)]
    assert (last.generated_text, last.details.finish_reason) == ("Hello", "eos_token")


async def test_the_client_learns_that_there_is_no_watermark_and_asks_again(client):
    with pytest.warns(UserWarning, match="watermark"):
        assert await client.text_generation("Say", watermark=True) == "Hello"
    huggingface_hub.inference._common._UNSUPPORTED_TEXT_GENERATION_KWARGS.clear()


async def test_the_client_sees_whose_fault_it_is():
    host = fake_host()
    async with served(host) as http, official(http, "/models/org/chat") as client:
        with pytest.raises(ValidationError, match="temperature"):
            await client.text_generation("Say", temperature=-1.0)
        host.failure = ModelFailed("Its process died.")
        with pytest.raises(TextGenerationError, match="died"):
            await client.text_generation("Say")
        with pytest.raises(HfHubHTTPError, match="died"):
            await client.feature_extraction("a", model="http://testserver/models/embedder")


# --------------------------------------------------------------------------------------------------------- which task


async def test_paths_name_models_with_slashes_aliases_and_tasks(http):
    for path in ("/models/embedder", "/models/embed", "/models/embed/pipeline/feature-extraction"):
        assert (await http.post(path, json={"inputs": "a"})).json() == [1, 0, 0, 0], path
    assert (await http.post("/models/embed/pipeline/feature-extraction", json={"inputs": ["a"]})).json() == [[1, 0, 0, 0]]
    body = {"inputs": {"source_sentence": "a", "sentences": ["b"]}}
    assert (await http.post("/models/embed/pipeline/sentence-similarity", json=body)).json() == [0]
    for path in ("/models/org/chat", "/models/org%2Fchat", "/models/org%2Fchat/pipeline/text-generation"):
        assert (await http.post(path, json={"inputs": "a"})).json() == [{"generated_text": "Hello"}], path
    missing = await http.post("/models/nobody", json={"inputs": "a"})
    assert (missing.status_code, missing.json()["error_type"]) == (404, "not_found")
    wrong = await http.post("/models/embed/pipeline/translation", json={"inputs": "a"})
    assert wrong.status_code == 400
    assert "feature-extraction" in wrong.json()["error"]


async def test_the_body_decides_among_the_tasks_of_a_model():
    host = fake_host(
        TEXT_RANKING, TEXT_CLASSIFICATION, models=(ModelInfo(id="m", tasks=("text-ranking", "text-classification")),)
    )
    async with served(host) as http:
        assert (await http.post("/models/m", json={"inputs": "a"})).json()[0][0]["label"] == "yes"
        found = (await http.post("/models/m", json={"query": "q", "documents": ["a", "b"]})).json()
        assert [each["index"] for each in found] == [0, 1]
        both = {"inputs": "a", "query": "q", "documents": ["a"]}
        assert (await http.post("/models/m", json=both)).status_code == 400, "nothing is dropped in silence"
        unknown = await http.post("/models/m", json={"inputs": "a", "parameters": {"topk": 1}})
        assert unknown.status_code == 400
        assert "topk" in unknown.json()["error"]


async def test_a_model_of_images_and_texts_takes_both():
    tasks = (TASKS["zero-shot-image-classification"], FEATURE_EXTRACTION, vision.IMAGE_FEATURE_EXTRACTION)

    def answer(task: str, request: Any, stream: bool = False) -> Any:
        return {
            "zero-shot-image-classification": LABELS,
            "feature-extraction": EmbeddingResult(embeddings=np.ones((1, 2), np.float32)),
            "image-feature-extraction": vision.ImageFeaturesResult(features=np.zeros(2, np.float32)),
        }[task]

    async with served(fake_host(*tasks, answer=answer)) as http:
        image = base64.b64encode(IMAGE).decode()
        assert (await http.post("/models/m", json={"inputs": "a cat"})).json() == [1, 1]
        assert (await http.post("/models/m", content=IMAGE, headers={"content-type": "image/png"})).json() == [0, 0]
        body = {"inputs": image, "parameters": {"candidate_labels": ["cat"]}}
        assert (await http.post("/models/m", json=body)).json() == [{"label": "cat", "score": 0.75}]


async def test_a_model_of_images_and_texts_that_writes_takes_both():
    talks = ("text-generation", "image-to-text", "visual-question-answering")
    tasks = (TEXT_GENERATION, TASKS["image-to-text"], TASKS["visual-question-answering"])
    image = base64.b64encode(IMAGE).decode()

    def answer_of(task: str, request: Any, stream: bool = False) -> Any:
        made = {"image-to-text": Made.captions, "visual-question-answering": Made.answers}
        return made[task] if task in made else answer(task, request, stream)

    async with served(fake_host(*tasks, models=(ModelInfo(id="m", tasks=talks),), answer=answer_of)) as http:
        assert (await http.post("/models/m", json={"inputs": "Say"})).json() == [{"generated_text": "Hello"}]
        assert (await http.post("/models/m", content=IMAGE)).json() == [{"generated_text": "a dog"}]
        for body in ({"inputs": {"image": image, "question": "?"}}, {"inputs": image, "question": "?"}):
            assert (await http.post("/models/m", json=body)).json()[0] == {"answer": "yes", "score": 0.9}


# ------------------------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize(
    "sent",
    [
        {"content": IMAGE, "headers": {"content-type": "image/png"}},
        {"content": IMAGE, "headers": {"content-type": "application/octet-stream"}},
        {"content": IMAGE},
        {"json": {"inputs": base64.b64encode(IMAGE).decode()}},
        {"json": {"inputs": base64.b64encode(IMAGE).decode(), "parameters": None, "options": {"wait_for_model": True}}},
        {"json": {"inputs": f"data:image/png;base64,{base64.b64encode(IMAGE).decode()}"}},
    ],
    ids=["type", "octets", "no type", "base64", "options", "data URL"],
)
async def test_a_file_comes_in_any_form(sent):
    host = fake_host(vision.IMAGE_CLASSIFICATION, answer=lambda *_, **__: LABELS)
    async with served(host) as http:
        response = await http.post("/models/m", **sent)
    assert response.json() == [{"label": "cat", "score": 0.75}]
    inputs = host.calls[0].request.inputs
    assert inputs.data == IMAGE or inputs.url.endswith(base64.b64encode(IMAGE).decode())


@pytest.mark.parametrize(
    ("task", "sent", "why"),
    [
        (vision.IMAGE_CLASSIFICATION, {"json": {"inputs": "no base64!"}}, "base64"),
        (vision.IMAGE_CLASSIFICATION, {"json": {"inputs": 5}}, "inputs"),
        (vision.IMAGE_CLASSIFICATION, {"json": {"parameters": {"top_k": 1}}}, "inputs"),
        (vision.IMAGE_CLASSIFICATION, {"json": {"inputs": "aaaa", "stream": True}}, "stream"),
        (vision.IMAGE_CLASSIFICATION, {"json": {"inputs": "aaaa", "parameters": {"top_k": "x"}}}, "top_k"),
        (TEXT_CLASSIFICATION, {"content": IMAGE, "headers": {"content-type": "image/png"}}, "JSON"),
        (TEXT_CLASSIFICATION, {"json": {"inputs": "a", "parameters": []}}, "parameters"),
        (TASKS["document-question-answering"], {"json": {"inputs": {"image": "", "question": ""}, "word_boxes": 5}}, "boxes"),
        (text2text.SUMMARIZATION, {"json": {"inputs": "a", "parameters": {"generate_parameters": 5}}}, "generate_parameters"),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_refused_by_name(task, sent, why):
    host = fake_host(task)
    async with served(host) as http:
        response = await http.post("/models/m", **sent)
    assert response.status_code == 400
    assert why in response.json()["error"]
    assert host.calls == []


async def test_pairs_of_words_and_boxes_are_taken_too():
    host = fake_host(TASKS["document-question-answering"], answer=lambda *_, **__: Made.readings)
    boxes = [["Total", [1, 2, 3, 4]], ["12", [5, 6, 7, 8]]]
    async with served(host) as http:
        body = {"inputs": {"image": "aaaa", "question": "q"}, "parameters": {"word_boxes": boxes}}
        assert (await http.post("/models/m", json=body)).json()[0] == {"answer": "yes", "score": 0.9, "start": None, "end": None}
    assert host.calls[0].request.words == ["Total", "12"]
    assert host.calls[0].request.boxes == [(1, 2, 3, 4), (5, 6, 7, 8)]


async def test_several_masks_have_several_lists():
    async with served(fake_host(tokens.FILL_MASK, answer=lambda *_, **__: MASKS)) as http:
        found = (await http.post("/models/m", json={"inputs": "[MASK] [MASK]"})).json()
    assert [[each["token_str"] for each in fillings] for fillings in found] == [["cat"], ["dog"]]


# --------------------------------------------------------------------------------------------------- beside the tasks


async def test_the_client_asks_what_a_model_is_and_how_it_is():
    failed = ModelInfo(id="broken", tasks=("feature-extraction",), state="failed", error="no file")
    async with served(fake_host(models=(*MODELS, failed))) as http:
        assert (await http.get("/models/org/chat/info")).json()["max_total_tokens"] == 64
        assert "embedding" in (await http.get("/models/embedder/info")).json()["model_type"]
        assert (await http.get("/models/org/chat/health")).status_code == 200
        assert (await http.get("/models/broken/health")).status_code == 503
        assert (await http.get("/models/nobody/health")).status_code == 404


async def test_the_client_chats_with_a_model_by_its_address(http, client):
    messages = [{"role": "user", "content": "hi"}]
    answer = await client.chat_completion(messages, max_tokens=5)
    assert (answer.model, answer.choices[0].message.content) == ("org/chat", "Hello")
    chunks = [chunk async for chunk in await client.chat_completion(messages, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"
    made_by = {each.system_fingerprint for each in (answer, *chunks)}
    assert made_by == {f"modelport-{version('modelport')}"}, "TGI's own client insists on it"
    refused = await http.post("/models/org/chat/v1/chat/completions", json={"messages": [], "model": "dummy"})
    assert (refused.status_code, set(refused.json()["error"])) == (400, {"message", "type", "param", "code"})


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("/models/org/chat", b'{"messages": [{"role": "user", "content": "hi"}]}', "context_length_exceeded"),
        ("/models/nobody", b'{"messages": [{"role": "user", "content": "hi"}]}', "model_not_found"),
        ("/models/org/chat", b"[]", None),
        ("/models/org/chat", b"{", None),
        ("/models/org/chat", b"", None),
    ],
)
async def test_errors_of_chat_are_those_of_openai(path, content, code):
    host = fake_host()
    host.failure = InputTooLong("70 tokens; the model takes 64.", param="messages")
    async with served(host) as http:
        model = path.removeprefix("/models/")
        named = content.replace(b'{"m', f'{{"model": "{model}", "m'.encode())
        theirs = await http.post("/v1/chat/completions", content=named)
        ours = await http.post(f"{path}/v1/chat/completions", content=content)
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())
    assert ours.json()["error"]["code"] == code


async def test_chat_without_a_key_is_refused_as_openai_does():
    async with served(fake_host(keys={})) as http:
        ours = await http.post("/models/org/chat/v1/chat/completions", json={"messages": []})
        theirs = await http.post("/v1/chat/completions", json={"messages": []})
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json()) == (401, theirs.json())


async def test_chat_without_the_plugin_openai_says_what_to_enable():
    from modelport.testing.api import connected

    async with connected(HuggingFace(), fake_host()) as http:
        response = await http.post("/models/org/chat/v1/chat/completions", json={"messages": []})
    assert response.status_code == 404
    assert "openai" in response.json()["error"]["message"]


async def test_a_load_that_goes_on_is_explained():
    host = fake_host()
    host.failure = Unavailable("The model is loading: 40% done.", retry_after_s=5)
    async with served(host) as http:
        response = await http.post("/models/embedder", json={"inputs": "a"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json() == {"error": "The model is loading: 40% done.", "error_type": "unhealthy"}


async def test_a_server_of_one_model_is_an_endpoint_of_it_whatever_it_does():
    async with served(fake_host(vision.IMAGE_CLASSIFICATION, answer=lambda *_, **__: LABELS)) as http:
        assert (await http.post("/", content=IMAGE)).json() == [{"label": "cat", "score": 0.75}]
        assert (await http.get("/info")).json() == {"model_id": "m", "model_pipeline_tag": "image-classification"}
        refused = await http.post("/vertex", json={"instances": [{"inputs": "a"}]})
        assert "/models/m" in refused.json()["error"]
    async with served(fake_host(TEXT_CLASSIFICATION)) as http:
        labels = [{"label": "yes", "score": 0.75}, {"label": "no", "score": 0.25}]
        assert (await http.post("/", json={"inputs": "a"})).json() == labels, "as TEI"
        async with official(http, "/") as client:
            assert [each.label for each in await client.text_classification("a")] == ["yes", "no"]
    async with served(fake_host(FEATURE_EXTRACTION)) as http, official(http, "") as client:
        assert (await client.feature_extraction(["a", "b"])).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
        assert await client.sentence_similarity("a", ["b"]) == [0]


LIMITS = {"body_bytes": 10_000, "media_bytes": 100_000}


@pytest.mark.parametrize(
    "path", ["/models/m", "/models/m/pipeline/image-classification", "/", "/invocations", "/v1/classify"], ids=str
)
async def test_files_may_be_larger_than_json_and_nothing_else_in_it(path):
    host = fake_host(vision.IMAGE_CLASSIFICATION, answer=lambda *_, **__: LABELS)
    file, text = base64.b64encode(b"x" * 30_000).decode(), "x" * 30_000
    async with served(host, limits=LIMITS) as http:
        for body in ({"inputs": file}, {"inputs": {"data": file}}, {"inputs": f"data:image/png;base64,{file}"}):
            assert (await http.post(path, json=body)).status_code == 200
        asked = len(host.calls)
        many = b'{"inputs": [' + b"[]," * 8_000 + b"[]]}"
        for content in (many, msgspec.json.encode({"inputs": file, "parameters": {"function_to_apply": text}})):
            response = await http.post(path, content=content)
            assert (response.status_code, response.json()["error_type"]) == (413, "validation"), response.text
    assert len(host.calls) == asked


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/org/chat", {"inputs": "x" * 30_000}),
        ("/v1/generate", {"model": "org/chat", "inputs": "x" * 30_000}),
        ("/", {"inputs": "x" * 30_000}),
        ("/invocations", {"messages": [{"role": "user", "content": "x" * 30_000}]}),
        ("/models/embedder", {"inputs": "x" * 30_000}),
        ("/models/embedder", {"inputs": ["x" * 100] * 300}),
        ("/models/embedder", {"inputs": {"source_sentence": "a", "sentences": ["x" * 30_000]}}),
        ("/v1/embed", {"model": "embedder", "inputs": "x" * 30_000}),
    ],
)
async def test_texts_are_not_larger_than_json_may_be(path, body):
    host = fake_host()
    async with served(host, limits=LIMITS, model="org/chat") as http:
        response = await http.post(path, json=body)
    assert (response.status_code, host.calls) == (413, []), response.text


async def test_embeddings_come_as_lists_or_base64_and_in_no_other_form(http):
    body = {"inputs": "a", "encoding_format": "base64"}
    packed = (await http.post("/models/embedder", json=body)).json()
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == [1, 0, 0, 0]
    refused = await http.post("/models/embedder", json=body | {"encoding_format": "int8"})
    assert refused.status_code == 400
    assert "encoding_format" in refused.json()["error"]


# ------------------------------------------------------------------------------------------------------- short routes


async def test_the_short_routes_take_the_model_in_the_body():
    async with served(fake_host()) as http:
        generated = await http.post(
            "/v1/generate", json={"model": "org/chat", "inputs": "a", "parameters": {"max_new_tokens": 3}}
        )
        assert generated.json() == [{"generated_text": "Hello"}]
        assert (await http.post("/v1/embed", json={"model": "embedder", "inputs": ["a", "b"]})).json() == [
            [1, 0, 0, 0],
            [0, 1, 0, 0],
        ]
        assert (await http.post("/v1/classify", json={"model": "ranker", "inputs": "a"})).json()[0][0]["label"] == "yes"
        assert (await http.post("/v1/classify", json={"inputs": "a"})).status_code == 200, "the only one that classifies"
        wrong = await http.post("/v1/detect", json={"model": "embedder", "inputs": "a"})
        assert wrong.status_code == 400
        assert "object-detection" in wrong.json()["error"]
        assert (await http.post("/v1/detect", json={"inputs": "a"})).status_code == 404


async def test_objects_are_detected():
    result = vision.DetectionResult(results=[vision.DetectedObject("cat", 0.9, vision.Box(1, 2, 3, 4))])
    async with served(fake_host(vision.OBJECT_DETECTION, answer=lambda *_, **__: result)) as http:
        body = {"model": "m", "inputs": base64.b64encode(IMAGE).decode(), "parameters": {"threshold": 0.5}}
        (found,) = (await http.post("/v1/detect", json=body)).json()
        (same,) = (await http.post("/v1/detect", content=IMAGE, headers={"content-type": "image/png"})).json()
    assert found == same == {"label": "cat", "score": 0.9, "box": {"xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}}


# ------------------------------------------------------------------------------------------------------ beside others


async def test_openais_routes_stay_openais(http):
    for path in ("/v1/embeddings", "/v1/chat/completions", "/v1/rerank"):
        error = (await http.post(path, json={"model": "nobody"})).json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, path
    assert (await http.get("/v1/models")).json()["object"] == "list"
    assert (await http.get("/v1/catalog")).status_code == 200


@pytest.mark.parametrize("options", [{"modell": "x"}, {"model": 5}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ConfigurationError, match=r"apis\.huggingface"):
        HuggingFace(options)


async def test_an_unknown_default_model_is_not_found():
    host = fake_host()
    async with served(host, model="chatt") as http:
        response = await http.post("/generate", json={"inputs": "a"})
    assert (response.status_code, response.json()["error_type"]) == (404, NotFound.kind)
