"""Every task that the Hub's own client can call, through that client: what reaches the model, and what comes back."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient

from modelport.contract.task import Media
from modelport.tasks import text2text, tokens, vision, zero_shot
from modelport.tasks.text import (
    FEATURE_EXTRACTION,
    TEXT_CLASSIFICATION,
    ClassificationResult,
    EmbeddingResult,
    LabelScore,
)

from .fakes import fake_host, official, served
from .made import TASKS, Made

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own use of httpx
LABELS = vision.LabelsResult(results=[LabelScore("cat", 0.75), LabelScore("dog", 0.25)])


@asynccontextmanager
async def client_of(task: Any, result: Any) -> AsyncIterator[tuple[AsyncInferenceClient, Any]]:
    """The official client of a model that does `task`, and the host that gives `result`."""
    host = fake_host(task, answer=lambda name, request, stream=False: result)
    async with served(host) as http, official(http, "/models/m") as client:
        yield client, host


def asked(host: Any) -> Any:
    assert len(host.calls) == 1
    return host.calls[0].request


async def test_feature_extraction():
    result = EmbeddingResult(embeddings=np.array([[1, 2, 3]], np.float32))
    async with client_of(FEATURE_EXTRACTION, result) as (client, host):
        found = await client.feature_extraction("hi", normalize=True, truncate=True, truncation_direction="left", dimensions=3)
    np.testing.assert_array_equal(found, [1, 2, 3])
    request = asked(host)
    assert (request.normalize, request.truncate, request.truncation_direction, request.dimensions) == (True, True, "left", 3)


async def test_sentence_similarity():
    result = EmbeddingResult(embeddings=np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32))
    async with client_of(FEATURE_EXTRACTION, result) as (client, host):
        found = await client.sentence_similarity("a", ["b", "c"])
    assert found == pytest.approx([0.6, 0.0])
    assert asked(host).inputs == ["a", "b", "c"]


async def test_text_classification():
    result = ClassificationResult(results=[[LabelScore("yes", 0.75), LabelScore("no", 0.25)]])
    async with client_of(TEXT_CLASSIFICATION, result) as (client, host):
        found = await client.text_classification("fine", top_k=2, function_to_apply="sigmoid")
    assert [(each.label, each.score) for each in found] == [("yes", 0.75), ("no", 0.25)]
    assert (asked(host).top_k, asked(host).function_to_apply) == (2, "sigmoid")


async def test_token_classification():
    result = tokens.TokenResult(results=[[tokens.Entity(entity_group="PER", score=0.9, word="Ada", start=0, end=3)]])
    async with client_of(tokens.TOKEN_CLASSIFICATION, result) as (client, host):
        (found,) = await client.token_classification("Ada", aggregation_strategy="simple", ignore_labels=["O"], stride=2)
    assert (found.entity_group, found.word, found.start, found.end) == ("PER", "Ada", 0, 3)
    assert (asked(host).aggregation_strategy, asked(host).stride) == ("simple", 2)


async def test_zero_shot_classification():
    result = zero_shot.ZeroShotResult(results=[[LabelScore("space", 0.75), LabelScore("cooking", 0.25)]])
    async with client_of(zero_shot.ZERO_SHOT_CLASSIFICATION, result) as (client, host):
        found = await client.zero_shot_classification("stars", ["space", "cooking"], multi_label=True)
    assert [(each.label, each.score) for each in found] == [("space", 0.75), ("cooking", 0.25)]
    assert asked(host).multi_label is True


@pytest.mark.parametrize("top_k", [None, 2])
async def test_question_answering(top_k):
    spans = [tokens.AnswerSpan("a cat", 0.9, 0, 5), tokens.AnswerSpan("cat", 0.1, 2, 5)][: top_k or 1]
    async with client_of(tokens.QUESTION_ANSWERING, tokens.AnsweringResult(results=[spans])) as (client, host):
        found = await client.question_answering("who?", "a cat sat", top_k=top_k, max_answer_len=7)
    assert [each.answer for each in (found if top_k else [found])] == [span.answer for span in spans]
    assert (asked(host).inputs, asked(host).max_answer_len) == (tokens.Question("who?", "a cat sat"), 7)


async def test_fill_mask():
    filled = [tokens.FilledMask(0.9, 5, "cat", "a cat"), tokens.FilledMask(0.1, 6, "dog", "a dog")]
    async with client_of(tokens.FILL_MASK, tokens.MaskResult(results=[[filled]])) as (client, host):
        found = await client.fill_mask("a [MASK]", top_k=2, targets=["cat", "dog"])
    assert [(each.token, each.token_str, each.sequence) for each in found] == [(5, "cat", "a cat"), (6, "dog", "a dog")]
    assert (asked(host).top_k, asked(host).targets) == (2, ["cat", "dog"])


async def test_summarization():
    result = text2text.SummarizationResult(results=[text2text.Summary("short")])
    async with client_of(text2text.SUMMARIZATION, result) as (client, host):
        found = await client.summarization("long", truncation="longest_first", generate_parameters={"num_beams": 2})
    assert found.summary_text == "short"
    assert (asked(host).truncation, asked(host).generate_parameters.num_beams) == ("longest_first", 2)


async def test_translation():
    result = text2text.TranslationResult(results=[text2text.Translation("Hallo")])
    async with client_of(text2text.TRANSLATION, result) as (client, host):
        found = await client.translation("Hello", src_lang="en_XX", tgt_lang="de_DE")
    assert found.translation_text == "Hallo"
    assert (asked(host).src_lang, asked(host).tgt_lang) == ("en_XX", "de_DE")


async def test_text_generation_of_a_model_with_an_encoder():
    result = text2text.Text2TextResult(results=[text2text.GeneratedText("Hallo")])
    async with client_of(text2text.TEXT2TEXT_GENERATION, result) as (client, host):
        assert await client.text_generation("say hello", max_new_tokens=5, do_sample=False) == "Hallo"
    assert asked(host).generate_parameters.max_new_tokens == 5


@pytest.mark.parametrize("top_k", [None, 1])
async def test_image_classification_takes_the_file_as_the_body_and_as_base64(top_k):
    async with client_of(vision.IMAGE_CLASSIFICATION, LABELS) as (client, host):
        found = await client.image_classification(PNG, top_k=top_k)
    assert [(each.label, each.score) for each in found] == [("cat", 0.75), ("dog", 0.25)]
    assert (asked(host).inputs.data, asked(host).top_k) == (PNG, top_k)


async def test_object_detection():
    result = vision.DetectionResult(results=[vision.DetectedObject("cat", 0.9, vision.Box(1, 2, 3, 4))])
    async with client_of(vision.OBJECT_DETECTION, result) as (client, host):
        (found,) = await client.object_detection(PNG, threshold=0.3)
    assert (found.label, found.box.xmin, found.box.ymax) == ("cat", 1, 4)
    assert asked(host).threshold == 0.3


async def test_image_segmentation():
    result = vision.SegmentationResult(results=[vision.Segment("sky", Media(data=PNG, mime="image/png"), 0.9)])
    async with client_of(vision.IMAGE_SEGMENTATION, result) as (client, host):
        (found,) = await client.image_segmentation(PNG, subtask="panoptic", mask_threshold=0.4)
    assert (found.label, found.score, found.mask.size) == ("sky", 0.9, (1, 1))
    assert (asked(host).subtask, asked(host).mask_threshold) == ("panoptic", 0.4)


async def test_zero_shot_image_classification():
    async with client_of(TASKS["zero-shot-image-classification"], LABELS) as (client, host):
        found = await client.zero_shot_image_classification(PNG, ["cat", "dog"], hypothesis_template="A {}")
    assert [each.label for each in found] == ["cat", "dog"]
    assert (asked(host).inputs.data, asked(host).hypothesis_template) == (PNG, "A {}")


async def test_image_to_text():
    async with client_of(TASKS["image-to-text"], Made.captions) as (client, host):
        assert (await client.image_to_text(PNG)).generated_text == "a dog"
    assert asked(host).inputs.data == PNG


async def test_visual_question_answering():
    async with client_of(TASKS["visual-question-answering"], Made.answers) as (client, host):
        found = await client.visual_question_answering(PNG, "is it?", top_k=2)
    assert [(each.answer, each.score) for each in found] == [("yes", 0.9), ("no", 0.1)]
    assert (asked(host).image.data, asked(host).question, asked(host).top_k) == (PNG, "is it?", 2)


async def test_document_question_answering():
    boxes: Any = ["Total", [1, 2, 3, 4], "12", [5, 6, 7, 8]]
    async with client_of(TASKS["document-question-answering"], Made.readings) as (client, host):
        found = await client.document_question_answering(PNG, "how much?", top_k=2, word_boxes=boxes)
    assert [each.answer for each in found] == ["yes", "no"]
    request = asked(host)
    assert (request.image.data, request.words, request.boxes) == (PNG, ["Total", "12"], [(1, 2, 3, 4), (5, 6, 7, 8)])


async def test_table_question_answering():
    table = {"Repository": ["Transformers"], "Stars": ["36542"]}
    async with client_of(TASKS["table-question-answering"], Made.table) as (client, host):
        found = await client.table_question_answering(table, "how many?", padding="longest", sequential=True)
    assert (found.answer, found.cells, found.aggregator) == ("36542", ["36542"], "AVERAGE")
    assert (asked(host).query, asked(host).table, asked(host).sequential) == ("how many?", table, True)


async def test_a_task_that_a_plugin_brings():
    async with client_of(TASKS["tabular-classification"], Made.classes) as (client, host):
        assert await client.tabular_classification({"height": ["1.5", "2.5"]}) == ["7", "5"]
    assert asked(host).table == {"height": ["1.5", "2.5"]}


async def test_automatic_speech_recognition():
    async with client_of(TASKS["automatic-speech-recognition"], Made.transcript) as (client, host):
        body = {"return_timestamps": True, "generation_parameters": {"num_beams": 2}}
        found = await client.automatic_speech_recognition(b"RIFF....", extra_body=body)
    assert (found.text, found.chunks[0].text, found.chunks[0].timestamp) == ("hello", "hello", [0.0, 1.5])
    request = asked(host)
    assert (request.inputs.data, request.return_timestamps) == (b"RIFF....", True)
    assert request.generate_parameters.num_beams == 2


@pytest.mark.parametrize("top_k", [None, 1])
async def test_audio_classification(top_k):
    async with client_of(TASKS["audio-classification"], LABELS) as (client, host):
        found = await client.audio_classification(b"RIFF....", top_k=top_k)
    assert [each.label for each in found] == ["cat", "dog"]
    assert (asked(host).inputs.data, asked(host).top_k) == (b"RIFF....", top_k)


async def test_audio_to_audio():
    async with client_of(TASKS["audio-to-audio"], Made.voices) as (client, _):
        (found,) = await client.audio_to_audio(b"RIFF....")
    assert (found.label, found.blob) == ("one", b"RIFF")


async def test_text_to_speech_answers_with_the_file():
    async with client_of(TASKS["text-to-speech"], Made.speech) as (client, host):
        found = await client.text_to_speech("hello", max_new_tokens=9, use_cache=True, extra_body={"voice": "ada"})
    assert found == b"RIFF"
    assert (asked(host).voice, asked(host).generate_parameters.max_new_tokens) == ("ada", 9)


async def test_text_to_image_answers_with_the_file():
    async with client_of(TASKS["text-to-image"], Made.picture) as (_, host), served(host) as http:
        response = await http.post("/models/m", json={"inputs": "a dog"}, headers={"accept": "image/png"})
    assert (response.content, response.headers["content-type"]) == (b"\x89PNG", "image/png")


async def test_depth_estimation_is_an_image_and_numbers():
    result = vision.DepthResult(depth=Media(data=PNG), predicted_depth=np.array([[1.5]], np.float32))
    async with served(fake_host(vision.DEPTH_ESTIMATION, answer=lambda *_, **__: result)) as http:
        response = await http.post("/models/m", content=PNG, headers={"content-type": "image/png"})
    assert response.json() == {"depth": base64.b64encode(PNG).decode(), "predicted_depth": [[1.5]]}
