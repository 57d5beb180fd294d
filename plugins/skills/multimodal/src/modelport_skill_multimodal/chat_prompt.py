"""From a conversation with images to a model's inputs, by the checkpoint's own processor."""

from __future__ import annotations

import base64
import binascii
import threading
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from modelport.contract import InvalidRequest, Media, UnsupportedParameter
from modelport.tasks.text import GenerationRequest
from modelport_hf.chat import ChatTemplates
from modelport_hf.media import decode_image
from modelport_hf.pictures import refuse_long
from modelport_hf.prompt import Prompt, Prompter
from modelport_hf.tokenizer import Tokenizer

__all__ = ["ImagePrompter"]


_UNWANTED = frozenset({"labels", "decoder_attention_mask"})
"""What some processors make beside: for training, and of ones alone, where nothing is padded, in a length that Pix2Struct's
`generate` does not take."""


class ImagePrompter(Prompter):
    """Makes prompts of texts and images for one model.

    A checkpoint without a chat template takes one message, of images and then a text, as its processor puts them together.

    Args:
        model: The model's name, for messages.
        tokenizer: Its tokenizer.
        templates: Its chat templates, maybe none.
        limit: Most tokens of prompt and output together.
        tool_parser: A form of tool calls from the configuration, over what the template shows.
        processor: transformers' own for the checkpoint.
        mark_id: The token that stands for images in the prompt, if config.json names one.
        most_images: Most images of a request.
        most_pixels: Most pixels of all images of a request together.

    Attributes:
        converses: Whether it has a chat template.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        templates: ChatTemplates,
        limit: int | None,
        tool_parser: str | None,
        *,
        processor: Any,
        mark_id: int | None,
        most_images: int,
        most_pixels: int,
    ) -> None:
        super().__init__(model, tokenizer, templates, limit, tool_parser)
        self.converses = bool(templates)
        self._processor = processor
        self._mark_id = mark_id
        self._most_images = most_images
        self._most_pixels = most_pixels
        self._lock = threading.Lock()  # transformers' tokenizers are set up anew for each call
        # Templates write one or the other for an image.
        named = (getattr(processor, name, None) for name in ("image_token", "boi_token"))
        self._marks = tuple(str(mark) for mark in named if mark is not None)

    def __call__(self, request: GenerationRequest) -> Prompt:
        """The prompt of a request.

        Raises:
            InvalidRequest: if it cannot be made, naming the field.
        """
        if request.messages is None and not self.converses:
            raise InvalidRequest(
                f"The model {self._model!r} writes about images only. Send messages: one, with an image.", param="prompt"
            )
        prompt = super().__call__(request)
        if not prompt.inputs and self._mark_id in prompt.ids:
            raise InvalidRequest(
                "The prompt holds the token that stands for an image, and there is no image.",
                param="prompt" if request.messages is None else "messages",
            )
        return prompt

    def about(self, image: Media, param: str, text: str, max_new_tokens: int | None) -> Prompt:
        """The prompt of one image and a text.

        Raises:
            InvalidRequest: if the image cannot be taken, naming `param`.
        """
        self._refuse_mark(text, "question")
        media = [self._decoded(image, param)]
        parts = [{"type": "image"}, *([{"type": "text", "text": text}] if text else [])]
        request = GenerationRequest(messages=[], max_new_tokens=max_new_tokens)
        try:
            rendered = self.render(request, [{"role": "user", "content": parts}], None)
            ids, inputs = self.encode(rendered, media)
            return self.fitted(request, Prompt(ids=ids, inputs=inputs, text=rendered, max_new_tokens=0))
        except InvalidRequest as error:
            raise type(error)(error.message, param=param) from error

    def read_part(self, part: dict[str, Any], param: str, media: list[Any]) -> dict[str, Any]:
        """An image is decoded, and is `{type: image}` to the template.

        Raises:
            InvalidRequest: if it is no image, cannot be decoded, or is one too many.
        """
        if part["type"] not in ("image", "image_url"):
            kind = str(part["type"])[:40]
            raise InvalidRequest(
                f"The model {self._model!r} takes texts and images, and this part is of the type {kind!r}. Parts are of the form"
                " {type: text, text: …} or {type: image_url, image_url: {url: …}}.",
                param=param,
            )
        if len(media) == self._most_images:
            raise InvalidRequest(f"A request holds at most {self._most_images} images. Leave some out.", param=param)
        image = self._decoded(_media(part, param), f"{param}.{_field(part)}")
        if image.width * image.height + sum(each.width * each.height for each in media) > self._most_pixels:
            raise InvalidRequest(
                f"The images of a request may have {self._most_pixels / 1e6:g} million pixels together, and these have more. Make"
                " them smaller.",
                param=param,
            )
        media.append(image)
        return {"type": "image"}

    def render(self, request: GenerationRequest, turns: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
        """The conversation as one text, with a mark where each image goes."""
        for index, turn in enumerate(turns):
            self._refuse_mark(turn["content"], f"messages.{index}.content")
        if not self.converses:
            return self._alone(request, turns)
        has_parts = not self._templates.reads_text(tools is not None) and self._templates.reads_parts(tools is not None)
        if has_parts:
            turns = [turn | {"content": _as_parts(turn["content"])} for turn in turns]
        return super().render(request, turns, tools)

    def encode(self, text: str, media: list[Any]) -> tuple[list[int], dict[str, np.ndarray]]:
        """Tokens, and pixels with all that the model is to know of them.

        Raises:
            InvalidRequest: if the processor does not take them.
        """
        begin = self._tokenizer.special.get("bos_token")
        # As transformers' `apply_chat_template` of processors does it.
        special = not (self.converses and begin and text.startswith(begin))
        if not media:
            if not self.converses:
                raise InvalidRequest(f"The model {self._model!r} writes about images; send one.", param="messages")
            return self._tokenizer.encode(text, special=special).ids, {}
        places = [text.count(mark) for mark in self._marks]
        if self.converses and any(places) and len(media) not in places:
            raise InvalidRequest(
                f"The model's chat template has places for {max(places)} images in this conversation, and it holds {len(media)}. "
                "Send images in turns of the user.",
                param="messages",
            )
        made = self._process(text, media, special)
        inputs = {name: value for name, value in made.items() if name not in _UNWANTED}
        ids = [int(token) for token in inputs.pop("input_ids", np.zeros((1, 0)))[0]]
        if ids and self._mark_id is not None and self._mark_id not in ids:
            raise InvalidRequest(
                "The model's chat template has no place for an image in this conversation. Send images in turns of the user.",
                param="messages",
            )
        return ids, inputs

    def _decoded(self, media: Media, param: str) -> Image.Image:
        image = decode_image(media, param, self._most_pixels)
        refuse_long(image, getattr(self._processor, "image_processor", None), self._most_pixels, param)
        return image

    def _alone(self, request: GenerationRequest, turns: list[dict[str, Any]]) -> str:
        for name in ("tools", "template_options"):
            if getattr(request, name):
                raise UnsupportedParameter(f"The model {self._model!r} has no chat template, and so no {name}.", param=name)
        if len(turns) != 1 or turns[0]["role"] != "user":
            raise InvalidRequest(
                f"The model {self._model!r} has no chat template: it takes one message of the user, with an image and, where the"
                " model reads it, a text. Send that, or add a chat_template.jinja to the checkpoint.",
                param="messages",
            )
        content = turns[0]["content"]
        return content if isinstance(content, str) else "\n".join(part["text"] for part in content if "text" in part)

    def _process(self, text: str, media: list[Image.Image], special: bool) -> dict[str, np.ndarray]:
        given: dict[str, Any] = {"text": [text], "images": [media]}
        kind = type(self._processor).__name__
        if self.converses:
            given |= {} if special else {"add_special_tokens": False}
        elif kind == "PaliGemmaProcessor":  # it adds marks itself, with a warning each time
            given["text"] = [self._processor.image_token * len(media) + text]
        elif len(media) > 1:
            raise InvalidRequest(f"The model {self._model!r} takes one image at a time.", param="messages")
        elif kind == "GitProcessor" and text:  # it goes on after the text, not after a token that ends it
            start = self._processor.tokenizer.cls_token
            given = {"images": media[0], "text": f"{start}{text}", "add_special_tokens": False}
        else:
            given = {"images": media[0]} | ({"text": text} if text else {})
        try:
            with self._lock:
                made = self._processor(**given, return_tensors="pt")
            return {name: _array(value) for name, value in made.items() if value is not None}
        except MemoryError:
            raise  # which no other image would mend
        except Exception as error:  # what a processor raises for an image that it does not take is not agreed upon
            why = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise InvalidRequest(
                f"The checkpoint's processor does not take these images with this text: {why}. Send images of a more usual size.",
                param="messages",
            ) from error

    def _refuse_mark(self, content: Any, param: str) -> None:
        """A text that holds the mark of an image would shift images to where none is."""
        texts = [content] if isinstance(content, str) else [part["text"] for part in content if "text" in part]
        held = next((mark for mark in self._marks if any(mark in text for text in texts)), None)
        if held is not None:
            raise InvalidRequest(
                f"A text holds {held!r}, which stands for an image to this model. Leave it out; an image is a part of its own.",
                param=param,
            )


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _field(part: dict[str, Any]) -> str:
    """The field of a part that holds the image."""
    return next((name for name in ("image_url", "url", "data", "base64", "image") if name in part), "image_url")


def _media(part: dict[str, Any], param: str) -> Media:
    """The image of a part, still encoded. OpenAI's `detail` says nothing that a processor could follow."""
    field = _field(part)
    value = part.get(field)
    try:
        if isinstance(value, Media):
            return value
        if isinstance(value, dict):
            known = {name: each for name, each in value.items() if name != "detail"}
            if isinstance(known.get("data"), str):
                known["data"] = base64.b64decode(known["data"], validate=True)
            return msgspec.convert(known, Media)
        if isinstance(value, bytes):
            return Media(data=value)
        if isinstance(value, str):
            is_text = field in ("data", "base64")
            return Media(data=base64.b64decode(value, validate=True)) if is_text else Media(url=value)
    except (binascii.Error, msgspec.ValidationError) as error:
        raise InvalidRequest(f"{param}.{field} is no image: {error}.", param=f"{param}.{field}") from None
    raise InvalidRequest(
        f"{param} is an image without its {field}. Send {{type: image_url, image_url: {{url: a data URL}}}}.",
        param=f"{param}.{field}",
    )


def _array(value: Any) -> np.ndarray:
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)
