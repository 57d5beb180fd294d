"""The conformance suites over the fakes: what they ask can be had, and the fakes are fit to stand in for backends and skills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pytest

from modelport.contract.backend import Backend
from modelport.contract.card import ModelCard
from modelport.contract.program import Generate, Program
from modelport.contract.skill import Skill
from modelport.tasks.text import GenerationRequest
from modelport.testing import fake_skills
from modelport.testing.backend import BackendSuite, card_of
from modelport.testing.fake_chat import Chat
from modelport.testing.fake_engine import TinyEngine
from modelport.testing.fake_network import TinyNetwork, write_tiny_network
from modelport.testing.fakes import BucketBackend, NumpyBackend
from modelport.testing.skill import SkillSuite, assert_close


class TestNumpyBackend(BackendSuite):
    backend: ClassVar[Backend] = NumpyBackend()

    def forward_checkpoint(self, folder: Path) -> Path:
        return write_tiny_network(folder)

    def generate_checkpoint(self, folder: Path) -> Path:
        return write_tiny_network(folder, seed=4)


class TestBucketBackend(TestNumpyBackend):
    backend = BucketBackend()


class TestPairs(SkillSuite):
    skill: ClassVar[Skill] = fake_skills.Pairs()
    backend: ClassVar[Backend] = BucketBackend()

    def card(self, folder: Path) -> ModelCard:
        return card_of(write_tiny_network(folder))

    def requests(self) -> Mapping[str, Sequence[msgspec.Struct]]:
        return {"fake-pairs": [fake_skills.PairsRequest([1, 2], [[3], [4, 5]]), fake_skills.PairsRequest([9], [[3]])]}

    def bad_requests(self) -> Sequence[tuple[str, msgspec.Struct, str]]:
        return [("fake-pairs", fake_skills.PairsRequest([1], []), "labels")]


class TestChat(SkillSuite):
    skill: ClassVar[Skill] = Chat()
    backend: ClassVar[Backend] = NumpyBackend()

    def card(self, folder: Path) -> ModelCard:
        return card_of(write_tiny_network(folder, pieces=["</s>", "a", "b", "ab", "c", " "]))

    def requests(self) -> Mapping[str, Sequence[msgspec.Struct]]:
        plain = GenerationRequest(prompt="ab", max_new_tokens=6)
        several = GenerationRequest(prompt=[1, 2], max_new_tokens=9, n=3, do_sample=True, seed=1, stop=["bc", "c "])
        return {"text-generation": [plain, several]}

    def bad_requests(self) -> Sequence[tuple[str, msgspec.Struct, str]]:
        return [("text-generation", GenerationRequest(prompt=prompt), "prompt") for prompt in ("", "z")]


class TestSuitesFindFaults:
    def test_a_backend_whose_rows_depend_on_padding_is_found(self, tmp_path: Path) -> None:
        class Leaky(NumpyBackend):
            def load(self, context, progress):  # type: ignore[no-untyped-def]
                runner = super().load(context, progress)
                submit = runner.submit
                runner.submit = lambda entry, batch: submit(entry, {**batch, "attention_mask": np.ones_like(batch["input_ids"])})  # type: ignore[method-assign]
                return runner

        suite = TestNumpyBackend()
        suite.backend = Leaky()  # type: ignore[misc]
        runner = suite.load(*suite._forward(tmp_path))
        with pytest.raises(AssertionError):
            suite.test_neither_padding_nor_other_rows_change_a_row(runner)

    def test_an_engine_that_ignores_what_it_does_not_name_is_found(self, tmp_path: Path) -> None:
        class Careless(BucketBackend):
            def load(self, context, progress):  # type: ignore[no-untyped-def]
                runner = super().load(context, progress)
                engine = TinyEngine(TinyNetwork(context.checkpoints["main"]), NumpyBackend.limits.params)
                runner.engine = lambda entry: engine  # type: ignore[method-assign]
                return runner

        suite = TestNumpyBackend()
        suite.backend = Careless()  # type: ignore[misc]
        runner = suite.load(suite.generate_checkpoint(tmp_path / "generate"), Program({"main": Generate()}))
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            suite.test_a_parameter_is_honoured_or_refused_by_name(runner, "logprobs")

    def test_results_that_differ_are_told_apart_by_place(self) -> None:
        first = fake_skills.PairsResult([1.0, 2.0], np.zeros(2))
        second = fake_skills.PairsResult([1.0, 2.5], np.zeros(2))
        with pytest.raises(AssertionError, match=r"result\.scores\[1\]"):
            assert_close(first, second, 1e-3)
