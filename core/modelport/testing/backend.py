"""The conformance suite of backends. Subclass it in your plugin's tests, with tiny checkpoints that your backend can load::

    class TestCpu(BackendSuite):
        backend = CpuBackend()
        vocabulary = 128

        def forward_checkpoint(self, folder):
            return tiny_bert(folder)

        def generate_checkpoint(self, folder):
            return tiny_llama(folder)

Over a backend that is installed, `pytest --pyargs modelport.testing --backend NAME` runs it without a line of code.

Every test drives a runner as the worker's device thread does: one call after the other, on one thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from modelport.contract import reduce
from modelport.contract.array import to_numpy
from modelport.contract.backend import Backend, LoadContext
from modelport.contract.card import ModelCard
from modelport.contract.device import Device, Probe
from modelport.contract.program import (
    Argmax,
    ArraySpec,
    At,
    Cast,
    Dense,
    Forward,
    Generate,
    LogSoftmax,
    Normalize,
    Output,
    Pool,
    Program,
    Sigmoid,
    Softmax,
    Splade,
    Step,
    TopK,
)
from modelport.contract.runner import Runner
from modelport.contract.session import Item, pad_and_stack
from modelport.testing.engine import EngineSuite

__all__ = ["BackendSuite"]

_TIMEOUT_S = 120.0
_DENSE_FILE = "suite_dense.safetensors"
_CHAINS: tuple[tuple[Step, ...], ...] = (
    (Pool("mean"),),
    (Pool("cls"),),
    (Pool("last"),),
    (Pool("max"),),
    (Pool("mean"), Normalize()),
    (Pool("cls"), Dense(_DENSE_FILE, "tanh"), Normalize()),
    (Pool("mean"), Dense(_DENSE_FILE, "gelu")),
    (Softmax(),),
    (LogSoftmax(),),
    (Sigmoid(),),
    (Pool("mean"), Argmax()),
    (Pool("mean"), TopK(3)),
    (At("rows"),),
    (Splade(),),
    (Splade(mode="sum", activation="log1p_relu"),),
    (Pool("mean"), Cast("float64")),
)


class BackendSuite(EngineSuite):
    """What the core relies on, test by test.

    Attributes:
        backend: The backend under test.
        hidden: The output of the forward checkpoint that is (batch, sequence, width).
        head: The head of its program.
        vocabulary: Token ids below this are used in prompts.
        tolerance: Largest difference to call two results equal, in float32.
        options: Passed to the backend's `load`.
    """

    backend: ClassVar[Backend]
    hidden: ClassVar[str] = "last_hidden_state"
    head: ClassVar[str] = "feature-extraction"
    tolerance: ClassVar[float] = 2e-5
    options: ClassVar[dict[str, Any]] = {}

    # ------------------------------------------------------------------------------------------------ what you provide

    def forward_checkpoint(self, folder: Path) -> Path | None:
        """Writes a tiny checkpoint whose model takes `input_ids` and `attention_mask`; None if there are only generators."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------------- its tests

    def test_a_probe_is_an_answer(self) -> None:
        """Devices, or the reason why there are none."""
        probe = self.backend.probe()
        assert probe.devices or probe.reason
        for device in probe.devices:
            assert device.backend == self.backend.name
            assert device.memory_total_bytes >= device.memory_free_bytes >= 0
        assert len({device.id for device in probe.devices}) == len(probe.devices)

    def test_an_environment_is_text(self) -> None:
        """It goes into a process's environment as it is."""
        environment = self.backend.environment(self.devices(), 2)
        assert all(isinstance(item, str) for pair in environment.items() for item in pair)

    def test_a_verdict_is_pure_quick_and_reasoned(self, tmp_path: Path) -> None:
        """The server asks for it often, on its event loop."""
        folder, program = self._forward(tmp_path)
        card, devices = card_of(folder), self.devices()
        first = self.backend.verdict(program, card, devices)
        began = time.perf_counter()
        assert all(self.backend.verdict(program, card, devices) == first for _ in range(100))
        assert time.perf_counter() - began < 0.5, "a verdict took more than 5 ms"
        assert first.reason
        assert first.runs

    def test_a_verdict_names_the_params_that_the_runner_honours(self, tmp_path: Path) -> None:
        """Placement decides by them before anything is loaded."""
        folder = self.generate_checkpoint(tmp_path / "generate")
        if folder is None:
            pytest.skip("this backend does not generate")
        program = Program({"main": Generate()})
        verdict = self.backend.verdict(program, card_of(folder), self.devices())
        runner = self.load(folder, program)
        try:
            assert verdict.params == runner.limits.params
        finally:
            runner.close()

    def test_limits_make_sense(self, runner: Runner) -> None:
        """The batcher divides by them."""
        limits = runner.limits
        assert limits.max_items >= 1
        assert limits.max_tokens >= 1
        assert limits.in_flight >= 1
        assert limits.shapes is None or (limits.shapes and list(limits.shapes) == sorted(limits.shapes))
        assert limits.reductions <= {step for chain in _CHAINS for step in map(_name, chain)}

    def test_facts_name_the_dtype(self, runner: Runner) -> None:
        """The placement record shows it."""
        assert runner.facts.get("dtype")

    def test_progress_is_told_while_loading(self, tmp_path: Path) -> None:
        """Silence is taken for a stall."""
        folder, program = self._forward(tmp_path)
        told: list[tuple[str, float]] = []
        self.load(folder, program, told).close()
        assert told
        assert all(what and 0 <= fraction <= 1 for what, fraction in told)

    def test_outputs_are_those_asked_for_and_no_others(self, runner: Runner) -> None:
        """What is not asked for costs memory and time."""
        outputs = self._run(runner, [self._items()[0]])
        assert set(outputs[0]) == {self.hidden}

    def test_neither_padding_nor_other_rows_change_a_row(self, runner: Runner) -> None:
        """A caller must not notice whom it was batched with."""
        items = self._items()
        for item, together in zip(items, self._run(runner, items), strict=True):
            (alone,) = self._run(runner, [item])
            length = item.cost
            np.testing.assert_allclose(together[self.hidden][:length], alone[self.hidden][:length], atol=self.tolerance)

    def test_a_batch_runs_twice_to_the_same_result(self, runner: Runner) -> None:
        """Nothing is left over from one run to the next."""
        items = self._items()
        for first, second in zip(self._run(runner, items), self._run(runner, items), strict=True):
            np.testing.assert_array_equal(first[self.hidden], second[self.hidden])

    def test_every_future_has_its_own_batch(self, runner: Runner) -> None:
        """As many submits as may be open, each with its own result."""
        items = self._items()[: max(1, runner.limits.in_flight)]
        futures = [runner.submit("main", self._collate(runner, [item])) for item in items]
        for item, future in zip(items, futures, strict=True):
            row = to_numpy(future.result(_TIMEOUT_S)[self.hidden])[0][: item.cost]
            (alone,) = self._run(runner, [item])
            np.testing.assert_allclose(row, alone[self.hidden][: item.cost], atol=self.tolerance)

    def test_a_bad_batch_fails_alone(self, runner: Runner) -> None:
        """The next one runs."""
        with pytest.raises(Exception):  # noqa: B017, PT011 - what it is called is the backend's business
            runner.submit("main", {"input_ids": np.zeros((1, 1, 1, 1), np.float32)}).result(_TIMEOUT_S)
        assert self._run(runner, [self._items()[0]])

    @pytest.mark.parametrize("chain", _CHAINS, ids=lambda chain: "-".join(map(_label, chain)))
    def test_a_reduction_equals_the_numpy_reference(self, tmp_path: Path, chain: tuple[Step, ...]) -> None:
        """Whether the backend does it or leaves it to the core."""
        folder, plain = self._forward(tmp_path)
        entry = plain.forward("main")
        assert isinstance(entry, Forward)
        wanted = Output("reduced", source=self.hidden, chain=chain)
        inputs = (*entry.inputs, ArraySpec("rows", axes=("batch", 2)))
        both = msgspec.structs.replace(entry, inputs=inputs, outputs=(Output(self.hidden), wanted))
        items = [Item({**item.arrays, "rows": np.array([item.cost - 1, 0])}, item.cost) for item in self._items()]
        weights = np.random.default_rng(5)
        width = self._width(folder)
        _write_dense(folder / _DENSE_FILE, weights.normal(size=(4, width)), weights.normal(size=4))
        runner = self.load(folder, Program({"main": both}))
        try:
            batch = self._collate(runner, items, inputs)
            raw = runner.submit("main", batch).result(_TIMEOUT_S)
            dense = reduce.dense_reader(folder)
            done = reduce.finish(both.outputs, raw, batch, runner.limits.reductions, dense)
            expected: tuple[np.ndarray, ...] = (to_numpy(raw[self.hidden]),)
            for step in chain:
                expected = reduce.apply(step, expected[0], batch, dense)
        finally:
            runner.close()
        found = [to_numpy(done["reduced"]), *([to_numpy(done["reduced_indices"])] if len(expected) > 1 else [])]
        for mine, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine[: len(items)], reference[: len(items)], atol=self.tolerance, rtol=1e-4)

    def test_a_kept_output_is_a_handle_on_the_device(self, tmp_path: Path) -> None:
        """Another entry takes it without a copy on the host; `numpy()` makes one."""
        folder, plain = self._forward(tmp_path)
        entry = msgspec.structs.replace(plain.forward("main"), outputs=(Output(self.hidden, keep=True),))
        runner = self.load(folder, Program({"main": entry}))
        try:
            batch = self._collate(runner, [self._items()[0]])
            kept: Any = runner.submit("main", batch).result(_TIMEOUT_S)[self.hidden]
            assert not isinstance(kept, np.ndarray)
            assert kept.numpy().shape == tuple(kept.shape)
            np.testing.assert_array_equal(kept[0].numpy(), kept.numpy()[0])
            assert kept[0][None].shape == (1, *kept.shape[1:])
        finally:
            runner.close()

    def test_a_buffer_is_memory_of_that_shape(self, runner: Runner) -> None:
        """`collate` may fill it."""
        buffer = runner.buffer((3, 5), "int64")
        assert buffer.shape == (3, 5)
        assert buffer.dtype == np.int64
        buffer[:] = 1

    def test_close_may_be_called_twice(self, tmp_path: Path) -> None:
        """The worker's way out calls it whatever happened before."""
        runner = self.load(*self._forward(tmp_path))
        runner.close()
        runner.close()

    # --------------------------------------------------------------------------------------------------------- helpers

    @pytest.fixture
    def runner(self, tmp_path: Path) -> Iterator[Runner]:
        """The forward checkpoint, loaded."""
        runner = self.load(*self._forward(tmp_path))
        yield runner
        runner.close()

    @pytest.fixture(autouse=True)
    def _on_a_device(self, request: pytest.FixtureRequest) -> None:
        """Skips a test before it has made anything, where there is no device; the probe itself needs none."""
        if request.function.__name__ != "test_a_probe_is_an_answer":
            self.devices()

    def devices(self) -> tuple[Device, ...]:
        """The first device; the test is skipped where there is none."""
        backend: Any = self.backend  # any object is hashable, though its protocol does not say so
        probe = _probe(backend)
        if not probe.devices:
            pytest.skip(probe.reason)
        return probe.devices[:1]

    def load(self, folder: Path, program: Program, told: list[tuple[str, float]] | None = None) -> Runner:
        """A runner in float32."""
        context = LoadContext(
            card=card_of(folder),
            program=program,
            checkpoints={"main": folder},
            devices=self.devices(),
            dtype="float32",
            options=self.options,
        )
        return self.backend.load(context, lambda what, fraction: told.append((what, fraction)) if told is not None else None)

    def _forward(self, tmp_path: Path) -> tuple[Path, Program]:
        folder = self.forward_checkpoint(tmp_path / "forward")
        if folder is None:
            pytest.skip("this backend only generates")
        inputs = (ArraySpec("input_ids"), ArraySpec("attention_mask"))
        return folder, Program({"main": Forward(head=self.head, inputs=inputs, outputs=(Output(self.hidden),))})

    def _items(self) -> list[Item]:
        random = np.random.default_rng(7)
        ids = [random.integers(1, self.vocabulary, size) for size in (3, 1, 4)]
        return [Item({"input_ids": row, "attention_mask": np.ones_like(row)}) for row in ids]

    def _collate(self, runner: Runner, items: Sequence[Item], specs: Sequence[ArraySpec] | None = None) -> dict[str, Any]:
        shapes = runner.limits.shapes
        shape = None
        if shapes is not None:
            longest = max(item.cost for item in items)
            shape = min((s for s in shapes if s[0] >= len(items) and s[1] >= longest), key=lambda s: s[0] * s[1], default=None)
            if shape is None:
                pytest.skip(f"no shape of {shapes} holds {len(items)} items of {longest}")
        return dict(pad_and_stack(specs or (ArraySpec("input_ids"), ArraySpec("attention_mask")), items, shape))

    def _run(self, runner: Runner, items: Sequence[Item]) -> list[dict[str, np.ndarray]]:
        outputs = runner.submit("main", self._collate(runner, items)).result(_TIMEOUT_S)
        return [{name: to_numpy(array)[row] for name, array in outputs.items()} for row in range(len(items))]

    def _width(self, folder: Path) -> int:
        program = self._forward(folder.parent)[1]
        runner = self.load(folder, program)
        try:
            return int(self._run(runner, [self._items()[0]])[0][self.hidden].shape[-1])
        finally:
            runner.close()


@cache
def _probe(backend: Any) -> Probe:
    """Once for each backend: the tests of a class run on one device."""
    found: Probe = backend.probe()
    return found


def card_of(folder: Path) -> ModelCard:
    """A card of the tiny checkpoint in `folder`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ModelCard(
        name="tiny",
        path=str(folder),
        model_type=config.get("model_type", ""),
        architectures=tuple(config.get("architectures") or ()),
        files=files,
        context_length=config.get("max_position_embeddings"),
        weight_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        config=config,
    )


def _write_dense(path: Path, weight: np.ndarray, bias: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({"linear.weight": weight.astype(np.float32), "linear.bias": bias.astype(np.float32)}, path)


def _name(step: Step) -> str:
    return str(type(step).__struct_config__.tag)


def _label(step: Step) -> str:
    return f"{_name(step)}_{step.mode}" if isinstance(step, Pool) else _name(step)
