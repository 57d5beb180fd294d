"""Conversations with images say what transformers' `generate` says of the same weights, through a real worker."""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from modelport.contract import InvalidRequest, Media
from modelport.tasks.multimodal import ImageToTextRequest, VisualQuestionRequest
from modelport.tasks.text import GenerationRequest, Message
from modelport.tasks.text2text import GenerateParameters
from modelport_hf.chat import load_chat_templates
from modelport_hf.processor import load_processor
from modelport_hf.tokenizer import load_tokenizer
from modelport_skill_multimodal.chat_prompt import ImagePrompter

from .conftest import Server, ask, draw, picture

SIZES = ((61, 47), (40, 70), (61, 47), (90, 30))
CHAT = ("llava", "llava_next", "qwen2_vl", "idefics2", "idefics3", "smolvlm", "gemma3", "internvl", "mllama", "mistral3",
        "aya_vision")  # fmt: skip


def ask_all(folder: Path, task: str, requests: Sequence[Any], *, together: bool = True) -> list[Any]:
    return ask(folder, [(task, request) for request in requests], together=together)


def question(text: str, *images: bytes, count: int = 8, **options: Any) -> GenerationRequest:
    parts = [*({"type": "image", "data": image} for image in images), {"type": "text", "text": text}]
    return GenerationRequest(
        messages=[Message(role="user", content=parts)], max_new_tokens=count, do_sample=False, logprobs=None, **options
    )


def expected(checkpoint: Any, text: str, images: Sequence[bytes]) -> str:
    """What transformers says: its template, its processor, its model."""
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": text}]
    prompt = checkpoint.render([{"role": "user", "content": content}])
    inputs = checkpoint.inputs(prompt, [picture(image) for image in images], add_special_tokens=False)
    return checkpoint.text(checkpoint.generate(inputs))


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # transformers' own, of InternVL's processor
@pytest.mark.parametrize("kind", CHAT)
def test_a_conversation_says_what_generate_says(kind: str, checkpoint: Callable[[str], Any]) -> None:
    """Images of different sizes beside each other, two in one message, and a turn without any."""
    made = checkpoint(kind)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    asked = [("what", [image]) for image in images] + [("which", images[:2]), ("hello", []), ("and what is this", [])]

    answers = ask_all(made.folder, "image-text-to-text", [question(text, *shown) for text, shown in asked])

    found = [answer if isinstance(answer, Exception) else answer.choices[0].text for answer in answers]
    assert found == [expected(made, text, shown) for text, shown in asked]
    assert len(set(found[: len(images)])) > 1, "a model that sees nothing proves nothing"


def test_a_model_without_a_template_takes_one_message_of_an_image_and_a_text(checkpoint: Callable[[str], Any]) -> None:
    made = checkpoint("paligemma")
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]

    answers = ask_all(made.folder, "image-text-to-text", [question("what", image) for image in images])

    inputs = [made.inputs("<image>what", [picture(image)]) for image in images]
    assert [answer.choices[0].text for answer in answers] == [made.text(made.generate(each)) for each in inputs]
    assert len({answer.choices[0].text for answer in answers}) > 1
    several = [Message(role="system", content="be kind"), Message(role="user", content="what")]
    alone, none, completion = ask_all(
        made.folder,
        "text-generation",
        [GenerationRequest(messages=several), question("what"), GenerationRequest(prompt="what")],
    )
    assert "has no chat template: it takes one message" in str(alone)
    assert "writes about images; send one" in str(none)
    assert "writes about images only" in str(completion)
    assert all(isinstance(error, InvalidRequest) for error in (alone, none, completion))


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text("abc de?", min_size=1, max_size=12), st.lists(st.sampled_from(range(4)), max_size=2)),
        min_size=2,
        max_size=5,
    )
)
@pytest.mark.parametrize("kind", ["qwen2_vl", "smolvlm"])
def test_conversations_do_not_change_each_other(
    kind: str, checkpoint: Callable[[str], Any], asked: list[tuple[str, list[int]]]
) -> None:
    folder = checkpoint(kind).folder
    requests = [question(text, *(draw(seed, *SIZES[seed]) for seed in seeds), count=5) for text, seeds in asked]

    async def scenario(served: Any) -> tuple[list[Any], list[Any]]:
        together = await asyncio.gather(*(served.ask("text-generation", request) for request in requests))
        return together, [await served.ask("text-generation", request) for request in requests]

    together, alone = Server(folder)._serve(folder.parent, scenario)
    assert together == alone


def test_a_stream_adds_up_and_ends_at_a_stop_string(checkpoint: Callable[[str], Any]) -> None:
    made = checkpoint("llava")
    whole = expected(made, "what", [draw(1)])
    stop = whole[3:5]

    async def scenario(served: Any) -> list[Any]:
        plain = await served.ask("image-text-to-text", question("what", draw(1), stop=[stop]))
        return [plain, await served.stream("image-text-to-text", question("what", draw(1), stop=[stop]))]

    plain, deltas = Server(made.folder)._serve(made.folder.parent, scenario)
    assert plain.choices[0].text == "".join(delta.text for delta in deltas) == whole.partition(stop)[0]
    assert plain.choices[0].finish_reason == deltas[-1].finish_reason == "stop"
    assert plain.choices[0].stop_sequence == stop
    assert len(deltas) > 1


def test_sampling_with_a_seed_repeats_itself(checkpoint: Callable[[str], Any]) -> None:
    options: dict[str, Any] = {"temperature": 3.0, "seed": 7, "n": 2}
    request = GenerationRequest(**{**_fields(question("what", draw(1))), "do_sample": True, **options})
    first, second = ask_all(checkpoint("llava").folder, "text-generation", [request, request])
    assert first == second
    assert first.choices[0].text != first.choices[1].text


def _fields(request: GenerationRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("messages", "max_new_tokens")}


def test_a_caption_and_an_answer_are_conversations_of_one_turn(checkpoint: Callable[[str], Any]) -> None:
    made = checkpoint("smolvlm")
    short = GenerateParameters(max_new_tokens=8)
    (caption,) = ask_all(
        made.folder, "image-to-text", [ImageToTextRequest(inputs=Media(data=draw(2)), generate_parameters=short)]
    )
    assert caption.results[0].generated_text == expected(made, "Describe this image.", [draw(2)]).strip()
    asked = VisualQuestionRequest(image=Media(data=draw(2)), question="why")
    (answer,) = ask_all(made.folder, "visual-question-answering", [asked])
    assert answer.results[0].answer.startswith(expected(made, "why", [draw(2)]).strip())
    assert answer.results[0].score is None


def test_an_image_may_be_written_in_several_ways(checkpoint: Callable[[str], Any]) -> None:
    text64 = base64.b64encode(draw(3)).decode()
    url = f"data:image/png;base64,{text64}"
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "image_url", "image_url": url},
        {"type": "image", "url": url},
        {"type": "image", "data": text64},
        {"type": "image", "base64": text64},
        {"type": "image", "image": {"data": text64}},
        {"type": "image", "image": Media(data=draw(3))},
    ]
    answers = ask_all(checkpoint("llava").folder, "text-generation", [message(part) for part in parts])
    assert len({answer.choices[0].text for answer in answers}) == 1


def image_part(data: bytes) -> dict[str, Any]:
    return {"type": "image", "data": data}


def message(*parts: dict[str, Any], role: str = "user") -> GenerationRequest:
    return GenerationRequest(messages=[Message(role=role, content=list(parts))], max_new_tokens=2)


def huge(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds nothing."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_what_cannot_be_taken_is_refused_and_the_worker_lives(checkpoint: Callable[[str], Any]) -> None:
    good = draw(0)
    flat = io.BytesIO()
    Image.new("RGB", (9000, 5000)).save(flat, "PNG")
    text = {"type": "text", "text": "what"}
    refused: dict[str, tuple[GenerationRequest, str, str]] = {
        "truncated": (message(image_part(good[: len(good) // 2]), text), "cannot be decoded", "messages.0.content.0.data"),
        "no image": (message(image_part(b"hello")), "not an image that can be read", "messages.0.content.0.data"),
        "huge": (message(image_part(huge(30_000, 30_000))), "at most 50 million", "messages.0.content.0.data"),
        "bomb": (message(image_part(flat.getvalue()), image_part(flat.getvalue())), "pixels together", "messages.0.content.1"),
        "many": (message(*[image_part(good)] * 33), "at most 32 images", "messages.0.content.32"),
        "address": (
            message({"type": "image_url", "image_url": {"url": "http://example.com/cat.png"}}),
            "fetches none",
            "messages.0.content.0.image_url.url",
        ),
        "empty": (message({"type": "image"}), "without its image_url", "messages.0.content.0.image_url"),
        "base64": (message({"type": "image", "data": "!!!"}), "is no image", "messages.0.content.0.data"),
        "sound": (message({"type": "input_audio", "input_audio": {}}), "of the type 'input_audio'", "messages.0.content.0"),
        "mark": (message(image_part(good), text | {"text": "a <image> b"}), "holds '<image>'", "messages.0.content"),
        "mark alone": (GenerationRequest(prompt="a <image> b"), "and there is no image", "prompt"),
        "long": (message(*[image_part(good)] * 30, text), "context holds", "messages"),
    }
    requests = [request for request, _, _ in refused.values()]

    *errors, tiny, last = ask_all(
        checkpoint("smolvlm").folder,
        "text-generation",
        [*requests, message(image_part(draw(0, 1, 1)), text), message(image_part(good), text)],
        together=False,
    )

    for (name, (_, why, param)), error in zip(refused.items(), errors, strict=True):
        assert isinstance(error, InvalidRequest), (name, error)
        assert why in str(error), name
        assert error.param == param, name
    assert tiny.choices[0].finish_reason == last.choices[0].finish_reason == "length"


def test_an_image_that_would_grow_too_large_is_refused(checkpoint: Callable[[str], Any]) -> None:
    line = io.BytesIO()
    Image.new("L", (1, 200_000)).save(line, "PNG")
    asked = [
        ("text-generation", message(image_part(line.getvalue()))),
        ("image-to-text", ImageToTextRequest(inputs=Media(data=line.getvalue()))),
    ]
    errors = ask(checkpoint("llava").folder, asked)
    assert all(isinstance(error, InvalidRequest) and "Cut out the part" in str(error) for error in errors), errors
    assert [error.param for error in errors] == ["messages.0.content.0.data", "inputs"]


def test_templates_write_either_mark_of_an_image(checkpoint: Callable[[str], Any]) -> None:
    """Gemma 3 writes the mark before an image, Gemma 3n and 4 the image's own, and their processors know both."""
    folder = checkpoint("llava").folder
    processor = load_processor(folder)
    processor.boi_token = "<|im_end|>"
    tokenizer = load_tokenizer(folder)
    templates = load_chat_templates(folder, tokenizer.special, of_processor=True)
    prompter = ImagePrompter(
        "m", tokenizer, templates, None, None, processor=processor, mark_id=None, most_images=3, most_pixels=10_000
    )
    assert "pixel_values" in prompter(question("what", draw(0), draw(1))).inputs


@pytest.mark.parametrize(("mark", "why"), [("", "has no place for an image"), ("<image><image>", "has places for 2 images")])
def test_a_template_with_other_places_than_images_is_told_apart(
    mark: str, why: str, checkpoint: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(checkpoint("llava").folder, folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<image>", mark))
    (error,) = ask_all(folder, "image-text-to-text", [question("what", draw(0))])
    assert isinstance(error, InvalidRequest)
    assert why in str(error)


@pytest.mark.parametrize(("kind", "is_honoured"), [("llava", True), ("mllama", False)])
def test_where_images_cannot_be_stepped_a_parameter_is_refused_by_name(
    kind: str, is_honoured: bool, checkpoint: Callable[[str], Any]
) -> None:
    """Mllama looks at the image again at every token."""
    request = question("what", draw(0), logit_bias={100: 1000.0}, no_repeat_ngram_size=0)
    (answer,) = ask_all(checkpoint(kind).folder, "text-generation", [request])
    if is_honoured:
        assert len(set(answer.choices[0].text)) == 1, "it says one token for ever"
    else:
        assert isinstance(answer, InvalidRequest)
        assert answer.param == "logit_bias"
