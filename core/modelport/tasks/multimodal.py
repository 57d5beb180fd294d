"""The built-in tasks on images and texts together, under the Hub's pipeline tags and its inference clients' field names.

Embeddings of images and texts by one model are the tasks `image-feature-extraction` and `feature-extraction`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from modelport.contract.errors import InvalidRequest
from modelport.contract.task import Media, Task
from modelport.tasks.labels import refuse_labels
from modelport.tasks.text import GenerationDelta, GenerationRequest, GenerationResult, join_generation, merge_generation
from modelport.tasks.text2text import GeneratedText, GenerateParameters
from modelport.tasks.vision import DetectionResult, LabelsResult

__all__ = [
    "DOCUMENT_QUESTION_ANSWERING",
    "IMAGE_TEXT_TO_TEXT",
    "IMAGE_TO_TEXT",
    "MOST_WORDS",
    "VISUAL_QUESTION_ANSWERING",
    "ZERO_SHOT_IMAGE_CLASSIFICATION",
    "ZERO_SHOT_OBJECT_DETECTION",
    "DocumentAnswer",
    "DocumentAnswersResult",
    "DocumentQuestionRequest",
    "ImageToTextRequest",
    "ImageToTextResult",
    "VisualAnswer",
    "VisualAnswersResult",
    "VisualQuestionRequest",
    "ZeroShotDetectionRequest",
    "ZeroShotImageRequest",
]

MOST_WORDS = 20_000
"""Most words of one document."""


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

# ------------------------------------------------------------------------------------- zero-shot-image-classification


class ZeroShotImageRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image, and labels for it that the model was not trained for.

    Args:
        inputs: The image, as bytes or a data URL.
        candidate_labels: The labels, from 1 to 1000.
        hypothesis_template: The sentence that is compared with the image; `{}` in it stands for the label.
    """

    inputs: Media
    candidate_labels: list[str]
    hypothesis_template: str = "This is a photo of {}."

    def __post_init__(self) -> None:
        refuse_labels(self.candidate_labels, self.hypothesis_template)


ZERO_SHOT_IMAGE_CLASSIFICATION: Task[ZeroShotImageRequest, LabelsResult, Any] = Task(
    "zero-shot-image-classification", ZeroShotImageRequest, LabelsResult, summary="An image to labels of the request's own"
)

# ----------------------------------------------------------------------------------------- zero-shot-object-detection


class ZeroShotDetectionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image, and what to find in it.

    Args:
        inputs: The image, as bytes or a data URL.
        candidate_labels: What to look for, from 1 to 1000 labels.
        threshold: The least score of an object, in [0, 1].
    """

    inputs: Media
    candidate_labels: list[str]
    threshold: float = 0.1

    def __post_init__(self) -> None:
        refuse_labels(self.candidate_labels)
        if not 0 <= self.threshold <= 1:
            raise InvalidRequest(f"threshold is {self.threshold}; it must be from 0 to 1.", param="threshold")


ZERO_SHOT_OBJECT_DETECTION: Task[ZeroShotDetectionRequest, DetectionResult, Any] = Task(
    "zero-shot-object-detection",
    ZeroShotDetectionRequest,
    DetectionResult,
    summary="Objects of the request's own labels in an image, and where they are",
)

# ------------------------------------------------------------------------------------------ visual-question-answering


class VisualQuestionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question about an image; the best `top_k` answers are given, where the model has several."""

    image: Media
    question: str
    top_k: int = 5

    def __post_init__(self) -> None:
        _refuse_question(self.question, self.top_k)


class VisualAnswer(msgspec.Struct):
    """An answer; `score` is its probability where the model chooses among answers, and None where it writes one."""

    answer: str
    score: float | None = None


class VisualAnswersResult(msgspec.Struct, kw_only=True):
    """Answers, best first."""

    results: list[VisualAnswer]


VISUAL_QUESTION_ANSWERING: Task[VisualQuestionRequest, VisualAnswersResult, Any] = Task(
    "visual-question-answering", VisualQuestionRequest, VisualAnswersResult, summary="A question about an image to answers"
)

# ---------------------------------------------------------------------------------------- document-question-answering


class DocumentQuestionRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question about a page.

    Args:
        image: The page.
        question: The question.
        words: The page's words in reading order; without them they are read from the image, where OCR is installed.
        boxes: Where each word stands, (left, top, right, bottom) in pixels of the image.
        top_k: At most so many answers.
        max_answer_len: The most tokens of an answer.
        handle_impossible_answer: Whether the answer may be that there is none: an empty one.
    """

    image: Media
    question: str
    words: list[str] | None = None
    boxes: list[tuple[int, int, int, int]] | None = None
    top_k: int = 1
    max_answer_len: int = 15
    handle_impossible_answer: bool = False

    def __post_init__(self) -> None:
        _refuse_question(self.question, self.top_k)
        if self.max_answer_len < 1:
            raise InvalidRequest(f"max_answer_len is {self.max_answer_len}; it must be at least 1.", param="max_answer_len")
        if (self.words is None) != (self.boxes is None):
            missing = "words" if self.words is None else "boxes"
            raise InvalidRequest("words and boxes come together: each word has a box.", param=missing)
        if self.words is None or self.boxes is None:
            return
        if len(self.words) > MOST_WORDS:
            raise InvalidRequest(
                f"words has {len(self.words)} entries, and a document holds at most {MOST_WORDS}. Send its pages one by one.",
                param="words",
            )
        if len(self.words) != len(self.boxes):
            raise InvalidRequest(
                f"There are {len(self.words)} words and {len(self.boxes)} boxes; each word has one box.", param="boxes"
            )


class DocumentAnswer(msgspec.Struct):
    """An answer, its probability, and the places of its first and last word among the page's, where it is copied from them."""

    answer: str
    score: float | None = None
    start: int | None = None
    end: int | None = None


class DocumentAnswersResult(msgspec.Struct, kw_only=True):
    """Answers, best first."""

    results: list[DocumentAnswer]


DOCUMENT_QUESTION_ANSWERING: Task[DocumentQuestionRequest, DocumentAnswersResult, Any] = Task(
    "document-question-answering", DocumentQuestionRequest, DocumentAnswersResult, summary="A question about a page to answers"
)


def _refuse_question(question: str, top_k: int) -> None:
    if not question.strip():
        raise InvalidRequest("The question is empty; give at least one word.", param="question")
    if top_k < 1:
        raise InvalidRequest(f"top_k is {top_k}; it must be at least 1.", param="top_k")
