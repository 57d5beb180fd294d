"""Captions, readings and answers are those of transformers' `generate` on the same weights, through a real worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from modelport.contract import InvalidRequest, Media
from modelport.tasks.multimodal import DocumentQuestionRequest, ImageToTextRequest, VisualQuestionRequest
from modelport.tasks.text import GenerationRequest, Message
from modelport.tasks.text2text import GenerateParameters

from .conftest import ask, draw, picture

SIZES = ((61, 47), (40, 70), (61, 47))
COUNT = 8
SHORT = GenerateParameters(max_new_tokens=COUNT)


def made_of(checkpoint: Any, image: bytes, text: str | None = None, skip: int | None = None, **options: Any) -> str:
    """What transformers makes of an image, and a text: `skip` tokens of what `generate` gives are the prompt."""
    inputs = checkpoint.processor(images=picture(image), return_tensors="pt", **({"text": text} if text else {}), **options)
    inputs.pop("decoder_attention_mask", None)
    tokens = checkpoint.generate(inputs, COUNT, skip)
    return checkpoint.text(tokens).strip()


@pytest.mark.parametrize("kind", ["blip", "blip_2", "git", "pix2struct", "trocr", "vit_gpt2", "donut"])
def test_an_image_becomes_what_generate_makes_of_it(kind: str, checkpoint: Callable[[str], Any]) -> None:
    made = checkpoint(kind)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES[: 2 if kind == "pix2struct" else 3])]  # its patches are many
    requests = [ImageToTextRequest(inputs=Media(data=image), generate_parameters=SHORT) for image in images]

    answers = ask(made.folder, [("image-to-text", request) for request in requests])

    found = [answer if isinstance(answer, Exception) else answer.results[0].generated_text for answer in answers]
    assert found == [made_of(made, image) for image in images]
    assert len(set(found)) > 1, "a model that sees nothing proves nothing"


PROMPTED = {
    "blip": ("what", 5, {}),
    "blip_2": ("what", None, {}),
    "git": ("[CLS]what", None, {"add_special_tokens": False}),
    "pix2struct": ("what", 5, {}),
    "kosmos_2": ("what", None, {}),
}
"""How each is told a text, and how many tokens of what `generate` gives are not new, if that is not the length of `input_ids`."""


@pytest.mark.parametrize("kind", PROMPTED)
def test_a_text_beside_the_image_is_continued(kind: str, checkpoint: Callable[[str], Any]) -> None:
    """As a conversation of one message: the way by which chat reaches models that do not converse."""
    made = checkpoint(kind)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES[: 2 if kind == "pix2struct" else 3])]
    contents = [[{"type": "image", "data": image}, {"type": "text", "text": "what"}] for image in images]
    requests = [GenerationRequest(messages=[Message(role="user", content=content)], max_new_tokens=COUNT) for content in contents]

    answers = ask(made.folder, [("text-generation", request) for request in requests])

    text, skip, options = PROMPTED[kind]
    found = [answer if isinstance(answer, Exception) else answer.choices[0].text.strip() for answer in answers]
    assert found == [made_of(made, image, text, skip, **options) for image in images]
    assert len(set(found)) > 1, "a model that sees nothing proves nothing"


@pytest.mark.parametrize(("kind", "asked"), [("blip_vqa", "what"), ("blip_2", "Question: what Answer:")])
def test_a_question_is_answered(kind: str, asked: str, checkpoint: Callable[[str], Any]) -> None:
    made = checkpoint(kind)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    requests = [VisualQuestionRequest(image=Media(data=image), question="what") for image in images]

    answers = ask(made.folder, [("visual-question-answering", request) for request in requests])

    found = [answer if isinstance(answer, Exception) else answer.results[0].answer for answer in answers]
    skip = 1 if kind == "blip_vqa" else None
    for image, answer in zip(images, found, strict=True):
        assert answer.startswith(made_of(made, image, asked, skip))
    assert len(set(found)) > 1


def test_donut_answers_a_question_about_a_page(checkpoint: Callable[[str], Any]) -> None:
    made = checkpoint("donut")
    request = DocumentQuestionRequest(image=Media(data=draw(1)), question="who")
    with_words = DocumentQuestionRequest(image=Media(data=draw(1)), question="who", words=["a"], boxes=[(0, 0, 1, 1)])
    too_long = DocumentQuestionRequest(image=Media(data=draw(1)), question="who " * 40)
    of_a_copy = DocumentQuestionRequest(image=Media(data=draw(1)), question="who", handle_impossible_answer=True)
    asked = [("document-question-answering", each) for each in (request, with_words, too_long, of_a_copy)]
    answer, words, long, impossible = ask(made.folder, asked)
    prompt = made.processor.tokenizer(
        "<s_docvqa><s_question>who</s_question><s_answer>", add_special_tokens=False, return_tensors="pt"
    ).input_ids
    inputs = made.processor(images=picture(draw(1)), return_tensors="pt")
    inputs["decoder_input_ids"] = prompt
    expected = made.generate(inputs, COUNT, inputs["decoder_input_ids"].shape[1])
    assert answer.results[0].answer.startswith(made.text(expected).strip())
    assert answer.results[0].score is None
    assert isinstance(words, InvalidRequest)
    assert words.param == "words"
    assert isinstance(impossible, InvalidRequest)
    assert impossible.param == "handle_impossible_answer"
    assert isinstance(long, InvalidRequest)
    assert "The question has 164 tokens" in str(long)


def test_bad_images_name_the_field(checkpoint: Callable[[str], Any]) -> None:
    good = draw(0)
    for kind, field, task, make in (
        ("donut", "inputs", "image-to-text", lambda image: ImageToTextRequest(inputs=image, generate_parameters=SHORT)),
        ("git", "inputs", "image-to-text", lambda image: ImageToTextRequest(inputs=image, generate_parameters=SHORT)),
        ("blip_vqa", "image", "visual-question-answering", lambda image: VisualQuestionRequest(image=image, question="what")),
    ):
        bad = [Media(data=good[:200]), Media(), Media(url="http://example.com/a.png")]
        broken, empty, address, one = ask(
            checkpoint(kind).folder, [(task, make(image)) for image in [*bad, Media(data=draw(0, 1, 1))]]
        )
        assert (broken.param, empty.param, address.param) == (field, field, f"{field}.url")
        assert not isinstance(one, Exception)
