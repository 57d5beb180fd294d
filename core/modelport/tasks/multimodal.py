"""Tasks on images and texts together, under the Hub's pipeline tags and with the field names of its inference clients."""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.task import Media, Task
from modelport.tasks.text import (
    GenerationDelta,
    GenerationRequest,
    GenerationResult,
    join_generation,
    merge_generation,
)
from modelport.tasks.text2text import GeneratedText, GenerateParameters

__all__ = [
    "DOCUMENT_QUESTION_ANSWERING",
    "IMAGE_TEXT_TO_TEXT",
    "IMAGE_TO_TEXT",
    "VISUAL_QUESTION_ANSWERING",
    "DocumentAnswer",
    "DocumentAnswersResult",
    "DocumentQuestionRequest",
    "ImageToTextRequest",
    "ImageToTextResult",
    "VisualAnswer",
    "VisualAnswersResult",
    "VisualQuestionRequest",
]

# ------------------------------------------------------------------------------------------------ image-text-to-text

IMAGE_TEXT_TO_TEXT: Task[GenerationRequest, GenerationResult, GenerationDelta] = Task(
    "image-text-to-text",
    GenerationRequest,
    GenerationResult,
    GenerationDelta,
    join_generation,
    merge_generation,
    summary="Conversations with images, continued",
)
"""Messages hold images as parts: `{type: image_url, image_url: {url}}`, or `{type: image}` with `url`, or `data` in base64."""

# ----------------------------------------------------------------------------------------------------- image-to-text


class ImageToTextRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image to put into words, or whose words to read.

    Args:
        inputs: The image, as bytes or a data URL.
        generate_parameters: How tokens are chosen.
    """

    inputs: Media
    generate_parameters: GenerateParameters = msgspec.field(default_factory=GenerateParameters)


class ImageToTextResult(msgspec.Struct, kw_only=True):
    """One text."""

    results: list[GeneratedText]


IMAGE_TO_TEXT: Task[ImageToTextRequest, ImageToTextResult, Any] = Task(
    "image-to-text", ImageToTextRequest, ImageToTextResult, summary="An image to a text about it, or in it"
)

# ----------------------------------------------------------------------------------------- visual-question-answering


class VisualQuestionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question about an image.

    Args:
        image: The image.
        question: The question.
        top_k: The best so many answers, at least 1; a model that writes its answer gives one.
    """

    image: Media
    question: str
    top_k: int = 5


class VisualAnswer(msgspec.Struct):
    """An answer, and its score if the model gives one."""

    answer: str
    score: float | None = None


class VisualAnswersResult(msgspec.Struct, kw_only=True):
    """Answers, best first."""

    results: list[VisualAnswer]


VISUAL_QUESTION_ANSWERING: Task[VisualQuestionRequest, VisualAnswersResult, Any] = Task(
    "visual-question-answering", VisualQuestionRequest, VisualAnswersResult, summary="A question about an image, answered"
)

# --------------------------------------------------------------------------------------- document-question-answering


class DocumentQuestionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question about the image of a document.

    Args:
        image: The image of a page.
        question: The question.
        words: The words of the page, for models that do not read by themselves.
        boxes: (left, top, right, bottom) of each word, from 0 to 1000 of the page's width and height.
        top_k: The best so many answers, at least 1.
        max_answer_len: Most words of an answer that is a part of the page.
        handle_impossible_answer: Whether no answer may be the best one.
    """

    image: Media
    question: str
    words: list[str] | None = None
    boxes: list[tuple[int, int, int, int]] | None = None
    top_k: int = 1
    max_answer_len: int = 15
    handle_impossible_answer: bool = False


class DocumentAnswer(msgspec.Struct):
    """An answer; its score and the words that it runs over, from `start` to `end`, if it is a part of the page."""

    answer: str
    score: float | None = None
    start: int | None = None
    end: int | None = None


class DocumentAnswersResult(msgspec.Struct, kw_only=True):
    """Answers, best first."""

    results: list[DocumentAnswer]


DOCUMENT_QUESTION_ANSWERING: Task[DocumentQuestionRequest, DocumentAnswersResult, Any] = Task(
    "document-question-answering", DocumentQuestionRequest, DocumentAnswersResult, summary="A question about a page, answered"
)
