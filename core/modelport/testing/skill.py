"""The conformance suite of skills. Subclass it in your plugin's tests, with a tiny checkpoint and requests of every task::

    class TestTextEmbedding(SkillSuite):
        skill = TextEmbedding()
        backend = CpuBackend()

        def card(self, folder):
            return card_of(tiny_bert(folder))

        def requests(self):
            return {"feature-extraction": [EmbeddingRequest(inputs="hello"), EmbeddingRequest(inputs=["a", "b"])]}

        def bad_requests(self):
            return [("feature-extraction", EmbeddingRequest(inputs=[]), "inputs")]

The skill runs on a real worker, in a thread.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
import numpy as np
import pytest

from modelport.contract import wire
from modelport.contract.backend import Backend
from modelport.contract.card import ModelCard
from modelport.contract.errors import InvalidRequest, ModelportError, error_from_wire
from modelport.contract.executor import Call, DeltaPart, FailedPart, Part, ReplicaSpec, ReplicaStats, ResultPart
from modelport.contract.program import Program
from modelport.contract.reply import Usage
from modelport.contract.skill import Skill
from modelport.contract.task import Task
from modelport.core.executors.thread import ThreadExecutor, ThreadReplica
from modelport.tasks.tokenization import DetokenizationRequest, TokenizationRequest

__all__ = ["Served", "SkillSuite", "assert_close"]

T = TypeVar("T")
_TIMEOUT_S = 120.0
_COMMON: Mapping[str, Sequence[msgspec.Struct]] = {
    "tokenization": [TokenizationRequest(inputs="a day"), TokenizationRequest(inputs=["a", "b c"], add_special_tokens=False)],
    "detokenization": [DetokenizationRequest(ids=[7, 8, 9]), DetokenizationRequest(ids=[[7], [8, 9]])],
}
"""Requests of tasks that any skill over text may serve beside its own."""


class Served:
    """A skill at work on one model."""

    def __init__(self, tasks: Mapping[str, Task[Any, Any, Any]]) -> None:
        self.tasks = tasks
        self.claimed: tuple[str, ...] = ()
        self.replica: ThreadReplica | None = None
        self.usage = Usage()
        self._last = 0

    def progress(self, what: str, fraction: float) -> None:
        """Not of interest."""

    def stats(self, stats: ReplicaStats) -> None:
        """Not of interest."""

    def died(self, cause: ModelportError, unstarted: list[int]) -> None:
        """Never: it runs in this process."""
        raise AssertionError(str(cause))

    async def ask(self, task: str, request: msgspec.Struct) -> Any:
        """The result."""
        return (await self._ask(task, request, stream=False))[1]

    async def stream(self, task: str, request: msgspec.Struct) -> list[Any]:
        """The deltas, or the result alone."""
        deltas, result = await self._ask(task, request, stream=True)
        return deltas or [result]

    async def _ask(self, task: str, request: msgspec.Struct, stream: bool) -> tuple[list[Any], Any]:
        assert self.replica is not None
        self._last += 1
        deltas: list[Any] = []
        end: asyncio.Future[ResultPart | FailedPart] = asyncio.get_running_loop().create_future()

        def receive(part: Part) -> None:
            if isinstance(part, DeltaPart):
                deltas.append(part.delta)
            elif isinstance(part, ResultPart | FailedPart):
                end.set_result(part)

        self.replica.call(Call(id=self._last, task=task, request=request, stream=stream), receive)
        last = await asyncio.wait_for(end, _TIMEOUT_S)
        if isinstance(last, FailedPart):
            raise error_from_wire(last.error)
        self.usage = last.usage
        return deltas, last.result


class SkillSuite:
    """What the core relies on, test by test.

    Attributes:
        skill: The skill under test.
        backend: What runs its programs; not needed for a skill without one.
        tolerance: Largest difference to call two numbers equal.
        checkpoints: Further checkpoints of its programs, by name, as functions that write them.
        options: The model's `options`.
    """

    skill: ClassVar[Skill]
    backend: ClassVar[Backend | None] = None
    tolerance: ClassVar[float] = 1e-4
    checkpoints: ClassVar[Mapping[str, Callable[[Path], Path]]] = {}
    options: ClassVar[Mapping[str, Any]] = {}

    # ------------------------------------------------------------------------------------------------ what you provide

    def card(self, folder: Path) -> ModelCard:
        """Writes a tiny checkpoint that the skill serves, and describes it."""
        raise NotImplementedError

    def requests(self) -> Mapping[str, Sequence[msgspec.Struct]]:
        """Good requests of every task, whose answers do not depend on chance; those of `tokenization` are known."""
        raise NotImplementedError

    def bad_requests(self) -> Sequence[tuple[str, msgspec.Struct, str]]:
        """(task, request, the field at fault) of requests that must be refused."""
        return ()

    # ------------------------------------------------------------------------------------------------------- its tests

    def test_it_claims_its_checkpoint_and_says_why(self, tmp_path: Path) -> None:
        """`modelport explain` shows the reason."""
        claim = self.skill.claim(self.card(tmp_path / "main"))
        assert claim is not None
        assert claim.reason
        assert 0 < claim.score <= 100
        assert claim.tasks
        assert set(claim.tasks) <= {task.name for task in self.skill.tasks}

    def test_it_does_not_claim_a_checkpoint_it_knows_nothing_of(self) -> None:
        """Or two skills would fight over every model."""
        assert self.skill.claim(ModelCard(name="strange", source="nobody/strange", model_type="no_such_type")) is None

    def test_its_programs_are_data(self, tmp_path: Path) -> None:
        """Hashable, equal when made again, and the same after a journey to a worker."""
        card = self.card(tmp_path / "main")
        programs = self.skill.programs(card)
        for task, program in programs.items():
            assert task in {known.name for known in self.skill.tasks}
            assert hash(program) == hash(self.skill.programs(card)[task])
            sent = msgspec.msgpack.decode(msgspec.msgpack.encode(program), type=Program)
            assert (sent, sent.digest) == (program, program.digest)

    def test_its_tasks_have_schemas(self) -> None:
        """Every generic surface shows them."""
        for task in self.skill.tasks:
            assert {"request", "result"} <= set(task.schema())

    def test_every_claimed_task_is_answered(self, tmp_path: Path) -> None:
        """With the task's own result, which survives the way to the server."""

        async def scenario(served: Served) -> None:
            for name, requests in self._requests(served.claimed).items():
                task = served.tasks[name]
                for request in requests:
                    result = await served.ask(name, request)
                    assert isinstance(result, task.result)
                    assert_close(wire.decode(*wire.encode(result), task.result), result, 0.0)

        self._serve(tmp_path, scenario)
        claim = self.skill.claim(self.card(tmp_path / "main"))
        assert claim is not None
        assert set(self._requests(claim.tasks)) == set(claim.tasks), "give requests of every task that it claims"

    def test_an_answer_does_not_depend_on_company(self, tmp_path: Path) -> None:
        """Alone, and among others at once."""

        async def scenario(served: Served) -> None:
            pairs = [(name, request) for name, requests in self._requests(served.claimed).items() for request in requests]
            alone = [await served.ask(*pair) for pair in pairs]
            together = await asyncio.gather(*(served.ask(*pair) for pair in pairs * 3))
            for index, result in enumerate(together):
                assert_close(result, alone[index % len(pairs)], self.tolerance)

        self._serve(tmp_path, scenario)

    def test_a_stream_adds_up_to_the_plain_answer(self, tmp_path: Path) -> None:
        """With the same usage."""
        streaming = {task.name: task for task in self.skill.tasks if task.delta is not None}
        if not streaming:
            pytest.skip("none of its tasks streams")

        async def scenario(served: Served) -> None:
            for name, requests in self._requests(served.claimed).items():
                task = streaming.get(name)
                for request in requests if task is not None else ():
                    plain = await served.ask(name, request)
                    usage = served.usage
                    deltas = await served.stream(name, request)
                    assert task is not None
                    assert task.join is not None
                    assert task.delta is not None
                    joined = task.join(deltas) if isinstance(deltas[0], task.delta) else deltas[0]
                    assert_close(joined, plain, self.tolerance)
                    assert served.usage == usage

        self._serve(tmp_path, scenario)

    def test_a_bad_request_is_refused_by_the_name_of_its_field(self, tmp_path: Path) -> None:
        """And harms no request after it."""
        bad = self.bad_requests()
        if not bad:
            pytest.skip("no bad requests are given")

        async def scenario(served: Served) -> None:
            for name, request, field in bad:
                with pytest.raises(InvalidRequest) as caught:
                    await served.ask(name, request)
                assert caught.value.param == field
            name, requests = next(iter(self.requests().items()))
            assert await served.ask(name, requests[0])

        self._serve(tmp_path, scenario)

    # --------------------------------------------------------------------------------------------------------- helpers

    def _requests(self, claimed: Sequence[str]) -> Mapping[str, Sequence[msgspec.Struct]]:
        return {name: asked for name, asked in _COMMON.items() if name in claimed} | dict(self.requests())

    def _serve(self, tmp_path: Path, scenario: Callable[[Served], Awaitable[T]]) -> T:
        """Runs `scenario` for each program of the skill in turn; gives the last result."""
        return asyncio.run(self._with_worker(tmp_path, scenario))

    async def _with_worker(self, tmp_path: Path, scenario: Callable[[Served], Awaitable[T]]) -> T:
        card = msgspec.structs.replace(self.card(tmp_path / "main"), options=dict(self.options))
        claim = self.skill.claim(card)
        assert claim is not None
        programs = self.skill.programs(card)
        folders = {name: write(tmp_path / name) for name, write in self.checkpoints.items()}
        executor = ThreadExecutor(lookup=lambda kind, name, module: self.skill if kind == "skills" else self.backend)
        served = _ByTask({task.name: task for task in self.skill.tasks})
        served.claimed = claim.tasks
        try:
            for name in claim.tasks:
                program = programs.get(name)
                if any(name in other.tasks_served for other in served.parts):
                    continue
                same = tuple(task for task in claim.tasks if programs.get(task) == program)
                served.parts.append(await self._start(executor, card, program, same, folders))
            return await scenario(served)
        finally:
            await executor.close()

    async def _start(
        self,
        executor: ThreadExecutor,
        card: ModelCard,
        program: Program | None,
        tasks: tuple[str, ...],
        folders: Mapping[str, Path],
    ) -> _Part:
        devices = self.backend.probe().devices[:1] if self.backend is not None else ()
        spec = ReplicaSpec(
            name=self.skill.name,
            card=card,
            skill=self.skill.name,
            skill_module="",
            tasks=tasks,
            backend=self.backend.name if program is not None and self.backend is not None else "",
            program=program,
            checkpoints={**({"main": Path(card.path)} if card.path else {}), **folders},
            devices=devices,
            dtype="float32" if program is not None else "auto",
            skill_options=dict(self.options),
        )
        part = _Part({task.name: task for task in self.skill.tasks}, tasks)
        part.replica = executor.replica(spec, part)
        await part.replica.start()
        return part


class _Part(Served):
    """One program of a skill, and the tasks that it serves."""

    def __init__(self, tasks: Mapping[str, Task[Any, Any, Any]], tasks_served: tuple[str, ...]) -> None:
        super().__init__(tasks)
        self.tasks_served = tasks_served


class _ByTask(Served):
    """All programs of a skill, each asked for its own tasks."""

    def __init__(self, tasks: Mapping[str, Task[Any, Any, Any]]) -> None:
        super().__init__(tasks)
        self.parts: list[_Part] = []

    async def _ask(self, task: str, request: msgspec.Struct, stream: bool) -> tuple[list[Any], Any]:
        part = next(part for part in self.parts if task in part.tasks_served)
        answer = await part._ask(task, request, stream)
        self.usage = part.usage
        return answer


def assert_close(found: Any, expected: Any, tolerance: float, where: str = "result") -> None:
    """Asserts that two results are equal, numbers within `tolerance`."""
    assert type(found) is type(expected), where
    if isinstance(found, np.ndarray):
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance, err_msg=where)
    elif isinstance(found, msgspec.Struct):
        for name in found.__struct_fields__:
            assert_close(getattr(found, name), getattr(expected, name), tolerance, f"{where}.{name}")
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_close(*pair, tolerance, f"{where}[{index}]")
    elif isinstance(found, dict):
        assert found.keys() == expected.keys(), where
        for key in found:
            assert_close(found[key], expected[key], tolerance, f"{where}[{key!r}]")
    elif isinstance(found, float):
        assert math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance), f"{where}: {found} is not {expected}"
    else:
        assert found == expected, where
