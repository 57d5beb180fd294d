"""The waist: every shape of work, on two backends that have nothing in common, with equal results.

No skill here names a backend, and no backend a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from modelport.contract.card import ModelCard
from modelport.contract.errors import InputTooLong, InvalidRequest, UnsupportedParameter, error_from_wire
from modelport.contract.executor import Call, DeltaPart, FailedPart, Part, ReplicaSpec, ReplicaStats, ResultPart
from modelport.contract.reply import Usage
from modelport.contract.skill import Skill
from modelport.core.executors.process import ProcessExecutor
from modelport.core.executors.thread import ThreadExecutor
from modelport.tasks.text import GenerationRequest, GenerationResult, ToolFunction, join_generation
from modelport.testing import fake_skills
from modelport.testing.fake_chat import Chat
from modelport.testing.fake_network import TinyNetwork, write_tiny_network

BACKENDS = ("fake-numpy", "fake-bucket")
IMAGE = [float(np.sin(index)) for index in range(16)]

# Token 0 ends. A chain makes the model say a tool call after "T", and one of two sentences after "S".
PIECES = [
    "</s>",
    "T",
    "S",
    "Hel",
    "lo ",
    "wor",
    "ld",
    "!ST",
    "OP",
    "Bye",
    " no",
    "w.",
    "<to",
    'ol>{"name": "f", ',
    '"argu',
    'ments": {"x": 1}}</t',
    "ool>",
]
CHAIN = {
    1: [12],
    12: [13],
    13: [14],
    14: [15],
    15: [16],
    16: [0],
    2: [3, 9],
    3: [4],
    4: [5],
    5: [6],
    6: [7],
    7: [8],
    8: [10],
    9: [10],
    10: [11],
    11: [0],
}


class Deployed:
    """A model at work, for a test."""

    def __init__(self, replica: Any, task: str) -> None:
        self.replica, self.task = replica, task
        self.usage = Usage()
        self.stats_seen: list[ReplicaStats] = []
        self.beat = asyncio.Event()
        self._id = 0

    def progress(self, what: str, fraction: float) -> None: ...

    def stats(self, stats: ReplicaStats) -> None:
        self.stats_seen.append(stats)
        self.beat.set()

    def died(self, cause: Exception, unstarted: list[int]) -> None:
        raise AssertionError(cause)

    async def ask(self, request: msgspec.Struct, stream: bool = False) -> Any:
        """The result, or the list of deltas."""
        self._id += 1
        end: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        deltas = []

        def receive(part: Part) -> None:
            if isinstance(part, DeltaPart):
                deltas.append(part.delta)
            elif isinstance(part, ResultPart | FailedPart):
                end.set_result(part)

        self.replica.call(Call(id=self._id, task=self.task, request=request, stream=stream), receive)
        last = await asyncio.wait_for(end, 20)
        if isinstance(last, FailedPart):
            raise error_from_wire(last.error)
        assert isinstance(last, ResultPart)
        self.usage = last.usage
        return deltas if stream else last.result

    async def counted(self) -> ReplicaStats:
        """Stats that are surely newer than everything that was answered."""
        for _ in range(2):
            self.beat.clear()
            await asyncio.wait_for(self.beat.wait(), 10)
        return self.stats_seen[-1]


Deploy = Callable[..., Any]


@pytest.fixture(params=["thread", "process"])
async def deploy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deploy]:
    executor = ThreadExecutor() if request.param == "thread" else ProcessExecutor()

    async def start(skill: Skill, backend: str, **config: Any) -> Deployed:
        folder = write_tiny_network(tmp_path / "main", seed=1, **config)
        vocoder = write_tiny_network(tmp_path / "vocoder", seed=2)
        card = ModelCard(name="tiny", path=str(folder), model_type="tiny_numpy", config=config)
        program = skill.programs(card)[skill.tasks[0].name]
        spec = ReplicaSpec(
            name="tiny",
            card=card,
            skill=skill.name,
            skill_module="modelport.testing.fake_skills",
            tasks=(skill.tasks[0].name,),
            backend=backend,
            backend_module="modelport.testing.fakes",
            program=program,
            checkpoints={"main": folder, "vocoder": vocoder},
            heartbeat_s=0.02,
        )
        deployed = Deployed(None, skill.tasks[0].name)
        deployed.replica = executor.replica(spec, deployed)  # type: ignore[arg-type]
        await deployed.replica.start()
        return deployed

    yield start
    await executor.close()


async def on_both(deploy: Deploy, skill: Skill, *requests: msgspec.Struct, **config: Any) -> list[list[Any]]:
    """The results of `requests`, asked all at once, from each backend."""
    results = []
    for backend in BACKENDS:
        deployed = await deploy(skill, backend, **config)
        results.append(list(await asyncio.gather(*(deployed.ask(request) for request in requests))))
    return results


def network(tmp_path: Path, name: str = "main") -> TinyNetwork:
    return TinyNetwork(tmp_path / name)


async def test_a_seek_loop_moves_as_far_as_the_last_window_said(deploy: Deploy) -> None:
    requests = [fake_skills.SeekRequest([float(np.cos(start + index)) for index in range(30)]) for start in range(6)]
    first, second = await on_both(deploy, fake_skills.Seek(), *requests)
    assert first == second
    assert all(result.places[0] == 0 and len(result.places) > 7 for result in first)
    assert len({tuple(result.places) for result in first}) > 1


async def test_two_towers_answer_one_request(deploy: Deploy, tmp_path: Path) -> None:
    request = fake_skills.TowersRequest([[5, 6], [7], [8, 9, 10, 11, 12]], [IMAGE, IMAGE[::-1]])
    (first,), (second,) = await on_both(deploy, fake_skills.Towers(), request)
    assert first.similarity.shape == (3, 2)
    np.testing.assert_allclose(first.similarity, second.similarity, atol=1e-6)
    text = network(tmp_path).get_text_features(np.array([[7]]), np.array([[1]]))["text_embeds"][0]
    image = network(tmp_path).get_image_features(np.array([IMAGE], np.float32))["image_embeds"][0]
    cosine = text @ image / np.linalg.norm(text) / np.linalg.norm(image)
    np.testing.assert_allclose(first.similarity[1, 0], cosine, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_image_is_encoded_once_and_asked_three_times(deploy: Deploy, tmp_path: Path, backend: str) -> None:
    deployed = await deploy(fake_skills.Points(), backend)
    request = fake_skills.PointsRequest(IMAGE, [(0.0, 1.0), (1.0, 1.0), (2.0, 3.0)])
    result = await deployed.ask(request)
    features = network(tmp_path).encode(np.array([IMAGE], np.float32))["features"]
    for row, point in zip(result.masks, request.points, strict=True):
        expected = network(tmp_path).decode(features, np.array([point], np.float32))["masks"][0]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert (await deployed.counted()).items == 1 + 3
    await deployed.ask(request)
    assert (await deployed.counted()).items == 1 + 3 + 3, "the second request finds the features in the cache"


async def test_one_request_becomes_as_many_items_as_it_has_labels(deploy: Deploy, tmp_path: Path) -> None:
    requests = [fake_skills.PairsRequest([5, 6, 7][: 1 + index % 3], [[n] * (1 + n) for n in range(1, 4)]) for index in range(9)]
    first, second = await on_both(deploy, fake_skills.Pairs(), *requests)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
        assert abs(float(np.linalg.norm(one.embedding)) - 1) < 1e-6
    logits = network(tmp_path).forward(np.array([[5, 1, 1]]), np.ones((1, 3)))["logits"][0]
    np.testing.assert_allclose(first[0].scores[0], (np.exp(logits) / np.exp(logits).sum())[0], atol=1e-6)


async def test_rows_are_laid_end_to_end_where_a_skill_says_so(deploy: Deploy) -> None:
    requests = [fake_skills.SharesRequest([float(n) for n in range(1, 2 + size)]) for size in (1, 5, 2, 3, 9, 4)]
    first, second = await on_both(deploy, fake_skills.Shares(), *requests)
    for request, one, other in zip(requests, first, second, strict=True):
        np.testing.assert_allclose(one.shares, np.array(request.values) / sum(request.values), atol=1e-6)
        np.testing.assert_allclose(one.shares, other.shares, atol=1e-6)


async def test_an_entry_may_belong_to_a_second_checkpoint(deploy: Deploy, tmp_path: Path) -> None:
    (first,), (second,) = await on_both(deploy, fake_skills.Speech(), fake_skills.SpeechRequest([4, 5, 6]))
    states = network(tmp_path).forward(np.array([[4, 5, 6]]), np.ones((1, 3)))["last_hidden_state"]
    expected = network(tmp_path, "vocoder").vocode(states)["waveform"].reshape(-1)
    np.testing.assert_allclose(first.waveform, expected, atol=1e-5)
    np.testing.assert_allclose(first.waveform, second.waveform, atol=1e-6)


async def test_two_choices_with_a_stop_string_across_tokens_are_equal_streamed_or_whole(deploy: Deploy) -> None:
    request = GenerationRequest(prompt="S", n=2, do_sample=True, seed=3, stop=["STOP"], max_new_tokens=20)
    answers = []
    for backend in BACKENDS:
        deployed = await deploy(Chat(), backend, pieces=PIECES, chain=CHAIN)
        plain = await deployed.ask(request)
        usage = deployed.usage
        deltas = await deployed.ask(request, stream=True)
        assert join_generation(deltas) == plain
        assert deployed.usage == usage
        assert usage.prompt_tokens == 1
        assert not any("ST" in delta.text for delta in deltas), "a stop string is held back, and never told"
        answers.append(plain)
    assert answers[0] == answers[1]
    texts = {choice.text: (choice.finish_reason, choice.stop_sequence) for choice in answers[0].choices}
    assert texts == {"Hello world!": ("stop", "STOP"), "Bye now.": ("stop", None)}


async def test_a_tool_call_is_found_across_deltas(deploy: Deploy) -> None:
    request = GenerationRequest(prompt="T", tools=[{"name": "f"}], max_new_tokens=20)
    for backend in BACKENDS:
        deployed = await deploy(Chat(), backend, pieces=PIECES, chain=CHAIN)
        plain: GenerationResult = await deployed.ask(request)
        assert join_generation(await deployed.ask(request, stream=True)) == plain
        choice = plain.choices[0]
        assert (choice.text, choice.finish_reason) == ("", "tool_calls")
        assert choice.tool_calls is not None
        assert choice.tool_calls[0].function == ToolFunction("f", '{"x": 1}')


async def test_generations_do_not_disturb_each_other(deploy: Deploy) -> None:
    requests = [GenerationRequest(prompt=[3 + index], do_sample=True, seed=index, max_new_tokens=12) for index in range(12)]
    together = await on_both(deploy, Chat(), *requests, pieces=PIECES)
    deployed = await deploy(Chat(), "fake-numpy", pieces=PIECES)
    alone = [await deployed.ask(request) for request in requests]
    assert together[0] == alone
    assert together[1] == alone


async def test_a_parameter_is_refused_by_name_where_it_is_not_honoured(deploy: Deploy) -> None:
    request = GenerationRequest(prompt="S", logit_bias={3: -100.0}, max_new_tokens=3)
    numpy = await deploy(Chat(), "fake-numpy", pieces=PIECES, chain=CHAIN)
    assert (await numpy.ask(request)).choices[0].text == "Bye now."
    bucket = await deploy(Chat(), "fake-bucket", pieces=PIECES, chain=CHAIN)
    with pytest.raises(UnsupportedParameter, match="logit_bias is not supported by the backend 'fake-bucket'") as caught:
        await bucket.ask(request)
    assert caught.value.param == "logit_bias"


@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_input_that_no_batch_can_hold_is_too_long(deploy: Deploy, backend: str) -> None:
    deployed = await deploy(fake_skills.Shares(), backend)
    with pytest.raises(InputTooLong, match="65 tokens; this model takes at most 64"):
        await deployed.ask(fake_skills.SharesRequest([1.0] * 65))
    assert len((await deployed.ask(fake_skills.SharesRequest([1.0] * 64))).shares) == 64


@pytest.mark.parametrize("backend", BACKENDS)
async def test_bad_input_names_its_field(deploy: Deploy, backend: str) -> None:
    deployed = await deploy(fake_skills.Pairs(), backend)
    with pytest.raises(InvalidRequest) as caught:
        await deployed.ask(fake_skills.PairsRequest([1], []))
    assert caught.value.param == "labels"
