"""Skills over `TinyNetwork`s, one for each shape of work that the contract must carry, in a plugin module."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import ClassVar

import msgspec
import numpy as np

from modelport import hookimpl
from modelport.contract.array import Array, to_numpy
from modelport.contract.card import ModelCard
from modelport.contract.errors import InvalidRequest
from modelport.contract.program import ArraySpec, Forward, Module, Normalize, Output, Pool, Program, Softmax
from modelport.contract.session import Item, Run, Session, SessionContext
from modelport.contract.skill import Claim, Skill
from modelport.contract.task import Task
from modelport.testing.fake_chat import Chat

__all__ = ["Pairs", "Points", "Seek", "Shares", "Speech", "Towers"]

MODELPORT_CONTRACT = "1.0"

TOKENS = (ArraySpec("input_ids"), ArraySpec("attention_mask"))
PIXELS = (ArraySpec("pixel_values", "float32", ("batch", 16)),)


def text_item(tokens: Sequence[int]) -> Item:
    """Token ids and their mask."""
    ids = np.asarray(tokens, np.int64)
    return Item({"input_ids": ids, "attention_mask": np.ones_like(ids)})


class _TinySkill(Skill):
    """Serves its one task for every tiny network."""

    program: ClassVar[Program]
    session_type: ClassVar[type[Session]]

    def claim(self, card: ModelCard) -> Claim | None:
        wanted = card.model_type == "tiny_numpy"
        return Claim(tuple(task.name for task in self.tasks), 10, "it is a tiny network") if wanted else None

    def programs(self, card: ModelCard) -> Mapping[str, Program]:
        return {task.name: self.program for task in self.tasks}

    def session(self, context: SessionContext) -> Session:
        return self.session_type(context)


# ----------------------------------------------------------------------------------- a loop whose next step needs the last


class SeekRequest(msgspec.Struct):
    values: list[float]


class SeekResult(msgspec.Struct):
    tokens: list[int]
    places: list[int]


class SeekSession(Session):
    """Reads a window, asks the model how far to move, and reads on from there."""

    async def handle(self, request: SeekRequest, run: Run) -> AsyncGenerator[SeekResult, None]:
        if not request.values:
            raise InvalidRequest("values must not be empty", param="values")
        place, tokens, places = 0, [], []
        while place < len(request.values):
            values = np.asarray(request.values[place : place + 4], np.float32)
            item = Item({"values": values, "mask": np.ones_like(values)})
            outputs = await run.forward("window", item)
            tokens.append(int(to_numpy(outputs["token"])))
            places.append(place)
            place += int(to_numpy(outputs["advance"]))
        yield SeekResult(tokens, places)


class Seek(_TinySkill):
    """Whisper's shape."""

    name = "fake-seek"
    tasks = (Task("fake-seek", SeekRequest, SeekResult),)
    session_type = SeekSession
    program = Program(
        {
            "window": Forward(
                head="none",
                call="window",
                inputs=(ArraySpec("values", "float32"), ArraySpec("mask", "float32")),
                outputs=(Output("advance"), Output("token")),
            )
        }
    )


# ------------------------------------------------------------------------------------------------------------- two towers


class TowersRequest(msgspec.Struct):
    texts: list[list[int]]
    images: list[list[float]]


class TowersResult(msgspec.Struct):
    similarity: np.ndarray


class TowersSession(Session):
    """Texts through one tower and images through the other, all at once."""

    async def handle(self, request: TowersRequest, run: Run) -> AsyncGenerator[TowersResult, None]:
        texts = [run.forward("text", text_item(tokens)) for tokens in request.texts]
        images = [run.forward("image", Item({"pixel_values": np.asarray(i, np.float32)}, 1)) for i in request.images]
        outputs = await asyncio.gather(*texts, *images)
        rows = [to_numpy(next(iter(output.values()))) for output in outputs]
        yield TowersResult(np.stack(rows[: len(texts)]) @ np.stack(rows[len(texts) :]).T)


class Towers(_TinySkill):
    """CLIP's shape."""

    name = "fake-towers"
    tasks = (Task("fake-towers", TowersRequest, TowersResult),)
    session_type = TowersSession
    program = Program(
        {
            "text": Forward(
                head="none", call="get_text_features", inputs=TOKENS, outputs=(Output("text_embeds", chain=(Normalize(),)),)
            ),
            "image": Forward(
                head="none", call="get_image_features", inputs=PIXELS, outputs=(Output("image_embeds", chain=(Normalize(),)),)
            ),
        }
    )


# ---------------------------------------------------------------------------------------- encode once, ask several times


class PointsRequest(msgspec.Struct):
    image: list[float]
    points: list[tuple[float, float]]


class PointsResult(msgspec.Struct):
    masks: np.ndarray


class PointsSession(Session):
    """The encoder's output stays on the device; every point is decoded from it."""

    async def handle(self, request: PointsRequest, run: Run) -> AsyncGenerator[PointsResult, None]:
        pixels = np.asarray(request.image, np.float32)
        key = hashlib.sha256(pixels.tobytes()).hexdigest()
        features = (await run.forward("encode", Item({"pixel_values": pixels}, 1), cache_key=key))["features"]
        items = [Item({"features": features, "points": np.asarray(point, np.float32)}, 1) for point in request.points]
        outputs = await asyncio.gather(*(run.forward("decode", item) for item in items))
        yield PointsResult(np.stack([to_numpy(output["masks"]) for output in outputs]))


class Points(_TinySkill):
    """SAM's shape."""

    name = "fake-points"
    tasks = (Task("fake-points", PointsRequest, PointsResult),)
    session_type = PointsSession
    program = Program(
        {
            "encode": Forward(head="none", call="encode", inputs=PIXELS, outputs=(Output("features", keep=True),)),
            "decode": Forward(
                head="none",
                call="decode",
                inputs=(ArraySpec("features", "float32", ("batch", "width")), ArraySpec("points", "float32", ("batch", 2))),
                outputs=(Output("masks"),),
            ),
        }
    )


# ---------------------------------------------------------------------------------------------- one request, several items


class PairsRequest(msgspec.Struct):
    text: list[int]
    labels: list[list[int]]


class PairsResult(msgspec.Struct):
    scores: list[float]
    embedding: np.ndarray


class PairsSession(Session):
    """One item for each label, through the default `handle`."""

    def preprocess(self, request: PairsRequest) -> list[Item]:
        if not request.labels:
            raise InvalidRequest("labels must name at least one label", param="labels")
        return [text_item([*request.text, *label]) for label in request.labels]

    def postprocess(self, request: PairsRequest, outputs: list[dict[str, Array]]) -> PairsResult:
        scores = [float(to_numpy(output["scores"])[0]) for output in outputs]
        return PairsResult(scores, to_numpy(outputs[0]["embedding"]))


class Pairs(_TinySkill):
    """Zero-shot classification's shape."""

    name = "fake-pairs"
    tasks = (Task("fake-pairs", PairsRequest, PairsResult),)
    session_type = PairsSession
    program = Program(
        {
            "main": Forward(
                head="feature-extraction",
                inputs=TOKENS,
                outputs=(
                    Output("scores", source="logits", chain=(Softmax(),)),
                    Output("embedding", source="last_hidden_state", chain=(Pool("mean"), Normalize())),
                ),
            )
        }
    )


# ------------------------------------------------------------------------------------------ rows laid end to end, not stacked


class SharesRequest(msgspec.Struct):
    values: list[float]


class SharesResult(msgspec.Struct):
    shares: np.ndarray


class SharesSession(Session):
    """Its arrays are concatenated, with a segment number for each value; padding is segment −1."""

    def preprocess(self, request: SharesRequest) -> list[Item]:
        return [Item({"values": np.asarray(request.values, np.float32)})]

    def collate(self, entry: str, items: Sequence[Item], shape: tuple[int, int] | None) -> dict[str, Array]:
        values = np.concatenate([to_numpy(item.arrays["values"]) for item in items])
        segments = np.repeat(np.arange(len(items)), [item.cost for item in items])
        room = (shape[0] * shape[1] if shape else len(values)) - len(values)
        return {"values": np.pad(values, (0, room)), "segments": np.pad(segments, (0, room), constant_values=-1)}

    def split(self, entry: str, outputs: Mapping[str, Array], items: Sequence[Item]) -> list[dict[str, Array]]:
        ends = np.cumsum([item.cost for item in items])
        return [{"shares": outputs["shares"][end - item.cost : end]} for item, end in zip(items, ends, strict=True)]

    def postprocess(self, request: SharesRequest, outputs: list[dict[str, Array]]) -> SharesResult:
        return SharesResult(to_numpy(outputs[0]["shares"]))


class Shares(_TinySkill):
    """The shape of models that take packed patches. Its entry is a module rather than a call of an auto class."""

    name = "fake-shares"
    tasks = (Task("fake-shares", SharesRequest, SharesResult),)
    session_type = SharesSession
    program = Program(
        {
            "main": Module(
                build="modelport.testing.fake_network:packed",
                inputs=(ArraySpec("values", "float32", ("packed",)), ArraySpec("segments", "int64", ("packed",), pad=-1)),
                outputs=(Output("shares"),),
            )
        }
    )


# ------------------------------------------------------------------------------------------------------- two checkpoints


class SpeechRequest(msgspec.Struct):
    text: list[int]


class SpeechResult(msgspec.Struct):
    waveform: np.ndarray


class SpeechSession(Session):
    """Frames from the first checkpoint, samples from the second."""

    async def handle(self, request: SpeechRequest, run: Run) -> AsyncGenerator[SpeechResult, None]:
        frames = (await run.forward("main", text_item(request.text)))["last_hidden_state"]
        real = to_numpy(frames)[: len(request.text)]
        samples = (await run.forward("vocoder", Item({"frames": real})))["waveform"]
        yield SpeechResult(to_numpy(samples)[: len(request.text)].reshape(-1))


class Speech(_TinySkill):
    """A text-to-speech model's shape, with a vocoder of its own."""

    name = "fake-speech"
    tasks = (Task("fake-speech", SpeechRequest, SpeechResult),)
    session_type = SpeechSession
    program = Program(
        {
            "main": Forward(head="text-to-spectrogram", inputs=TOKENS, outputs=(Output("last_hidden_state"),)),
            "vocoder": Forward(
                head="none",
                call="vocode",
                checkpoint="vocoder",
                inputs=(ArraySpec("frames", "float32", ("batch", "sequence", "width")),),
                outputs=(Output("waveform"),),
            ),
        },
        checkpoints={"vocoder": "the/vocoder"},
    )


@hookimpl
def register_skills() -> list[Skill]:
    """All of them."""
    return [Seek(), Towers(), Points(), Pairs(), Shares(), Speech(), Chat()]
