"""Static batches: what cannot be stepped, and beams, against transformers' own generate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import Generate, GenerateRequest, InputTooLong, InvalidRequest, Sampling, UnsupportedParameter

PROMPTS = [np.random.default_rng(seed).integers(5, 90, length) for seed, length in enumerate((6, 6, 11, 6, 11, 3))]
HEADS = {"t5": "seq2seq-lm", "bart": "seq2seq-lm", "mamba": "causal-lm", "bloom": "causal-lm"}


def config_of(kind: str) -> Any:
    ends = {"eos_token_id": 1, "pad_token_id": 0}
    if kind == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
        return transformers.T5Config(vocab_size=96, decoder_start_token_id=0, **sizes, **ends)
    if kind == "bart":
        sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
        heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 128}
        starts = {"decoder_start_token_id": 2, "bos_token_id": 2, "forced_eos_token_id": None}
        return transformers.BartConfig(vocab_size=96, **sizes, **heads, **ends, **starts)
    if kind == "mamba":
        return transformers.MambaConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, state_size=8, **ends)
    return transformers.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4, **ends)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("static")

    def make(kind: str) -> Path:
        folder = root / kind
        if not folder.exists():
            torch.manual_seed(3)
            auto = transformers.AutoModelForSeq2SeqLM if HEADS[kind] == "seq2seq-lm" else transformers.AutoModelForCausalLM
            auto.from_config(config_of(kind)).eval().save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def crowd_of(made: Callable[[str], Path], crowd: Callable[..., Any]) -> Callable[..., Any]:
    return lambda kind, **rest: crowd(made(kind), Generate(head=HEADS[kind]), **rest)


def reference(folder: Path, head: str, prompt: np.ndarray, new: int, **options: Any) -> list[list[int]]:
    auto = transformers.AutoModelForSeq2SeqLM if head == "seq2seq-lm" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder)
    ids = torch.from_numpy(prompt)[None]
    given = {"do_sample": False, "pad_token_id": 0} | options
    rows = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, **given)
    end = model.generation_config.eos_token_id
    tokens = [row[1 if head == "seq2seq-lm" else len(prompt) :].tolist() for row in rows]
    return [row[: row.index(end)] if end in row else row for row in tokens]


@pytest.mark.parametrize("kind", HEADS)
def test_greedy_tokens_equal_transformers_in_a_crowd(kind: str, made: Any, crowd_of: Callable[..., Any]) -> None:
    people = crowd_of(kind)
    for key, prompt in enumerate(PROMPTS):
        people.add(key, prompt, max_new_tokens=8 + key)
    people.drain()
    expected = [reference(made(kind), HEADS[kind], prompt, 8 + key) for key, prompt in enumerate(PROMPTS)]
    assert [[people.tokens[key, 0]] for key in range(len(PROMPTS))] == expected
    ends = ["length" if len(tokens) == 8 + key else "stop" for key, (tokens,) in enumerate(expected)]
    assert [people.finish[key, 0] for key in range(len(PROMPTS))] == ends


def test_prompts_of_one_length_share_a_batch_and_tokens_come_one_by_one(crowd_of: Callable[..., Any]) -> None:
    people = crowd_of("mamba")
    for key, prompt in enumerate(PROMPTS):
        people.add(key, prompt, max_new_tokens=4, ignore_eos=True)
    assert [sorted(event.id for event in people.step()) for _ in range(4)] == [[0, 1, 3]] * 4
    assert (people.engine.load().running, people.engine.load().waiting) == (0, 3)
    assert sorted(event.id for event in people.step()) == [2, 4]
    people.drain()
    assert set(people.finish.values()) == {"length"}


@pytest.mark.parametrize("kind", ["llama", "t5", "bart"])
def test_beams_equal_transformers(kind: str, tiny: Any, made: Any, crowd: Any, crowd_of: Callable[..., Any]) -> None:
    folder, people = (tiny("llama"), crowd(tiny("llama"))) if kind == "llama" else (made(kind), crowd_of(kind))
    people.add(1, PROMPTS[0], max_new_tokens=10, num_beams=4, n=2)
    people.add(2, PROMPTS[2], max_new_tokens=10)
    people.drain()
    head = HEADS.get(kind, "causal-lm")
    beams = reference(folder, head, PROMPTS[0], 10, num_beams=4, num_return_sequences=2)
    assert [people.tokens[1, 0], people.tokens[1, 1]] == beams
    assert [people.tokens[2, 0]] == reference(folder, head, PROMPTS[2], 10), "beside it"


@pytest.mark.parametrize("kind", ["mamba", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
def test_ends_that_are_to_be_ignored_are_whatever_the_checkpoint_says(
    kind: str, beams: int, made: Any, crowd: Any, tmp_path: Path
) -> None:
    auto = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(made(kind))
    model.generation_config.eos_token_id = None
    ids = torch.from_numpy(PROMPTS[0])[None]
    plain = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "num_beams": beams}
    row = model.generate(ids, attention_mask=torch.ones_like(ids), **plain)[0].tolist()
    expected = row[1 if kind == "t5" else len(PROMPTS[0]) :]
    model.generation_config.update(eos_token_id=expected[2], min_new_tokens=2)
    model.save_pretrained(tmp_path)

    people = crowd(tmp_path, Generate(head=HEADS[kind]))
    people.add(1, PROMPTS[0], max_new_tokens=12, num_beams=beams, ignore_eos=True, min_new_tokens=0)
    people.drain()
    assert people.tokens[1, 0] == expected
    assert people.finish[1, 0] == "length"


def test_a_seed_repeats_itself_in_any_company_and_choice_i_draws_from_seed_plus_i(crowd_of: Callable[..., Any]) -> None:
    people = crowd_of("mamba")
    sampled = {"do_sample": True, "temperature": 1.5, "max_new_tokens": 12}
    people.add(1, PROMPTS[0], seed=7, **sampled)
    people.add(2, PROMPTS[1], **sampled)
    people.drain()
    people.add(3, PROMPTS[0], seed=6, n=2, **sampled)
    people.add(4, PROMPTS[3], max_new_tokens=5)
    people.drain()
    assert people.tokens[3, 1] == people.tokens[1, 0] != people.tokens[3, 0]


def test_cancelling_ends_a_choice_within_a_token_and_the_batch_with_the_last(crowd_of: Callable[..., Any]) -> None:
    people = crowd_of("mamba")
    for key in (0, 1):
        people.add(key, PROMPTS[key], max_new_tokens=50, ignore_eos=True)
    people.step()
    people.engine.cancel(0)
    assert [event.id for event in people.step()] == [1]
    people.engine.cancel(1)
    assert (people.engine.load().running, people.engine.step()) == (0, [])
    people.add(5, PROMPTS[4], max_new_tokens=3, ignore_eos=True)
    people.drain()
    assert people.finish == {(5, 0): "length"}


def test_deadlines_end_who_runs_and_who_waits(crowd_of: Callable[..., Any]) -> None:
    now = 0.0
    people = crowd_of("mamba")
    people.engine._clock = lambda: now
    people.add(1, PROMPTS[0], max_new_tokens=50, ignore_eos=True, deadline=5.0)
    people.add(2, PROMPTS[2], max_new_tokens=50, deadline=5.0)
    people.step()
    now = 6.0
    people.drain()
    assert people.finish == {(1, 0): "cancelled", (2, 0): "cancelled"}


@pytest.mark.parametrize(
    ("request_", "error", "param"),
    [
        ({"logprobs": 1}, UnsupportedParameter, "logprobs"),
        ({"params": Sampling(logit_bias={1: 1.0})}, UnsupportedParameter, "logit_bias"),
        ({"params": Sampling(num_beams=1000)}, InvalidRequest, "num_beams"),
        ({"params": Sampling(num_beams=2), "n": 3}, InvalidRequest, "n"),
        ({"inputs": {"input_ids": np.zeros(0, np.int64)}}, InvalidRequest, "prompt"),
        ({"inputs": {"input_ids": np.array([5, 96])}}, InvalidRequest, "prompt"),
        ({"inputs": {"input_ids": np.full(300, 5)}}, InputTooLong, "prompt"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    request_: dict[str, Any], error: type[InvalidRequest], param: str, crowd_of: Callable[..., Any]
) -> None:
    people = crowd_of("mamba", max_length=200)
    with pytest.raises(error) as caught:
        people.engine.add(GenerateRequest(**({"id": 1, "inputs": {"input_ids": np.array([5])}} | request_)))
    assert caught.value.param == param
    assert people.engine.load().waiting == 0


def test_a_failing_generate_fails_its_batch_and_no_other(crowd_of: Callable[..., Any]) -> None:
    people = crowd_of("mamba")
    people.engine.add(GenerateRequest(id=1, inputs={"input_ids": PROMPTS[0], "nonsense": np.zeros(3, np.float32)}))
    people.add(2, PROMPTS[2], max_new_tokens=3, ignore_eos=True)
    people.drain()
    assert people.finish == {(1, 0): "error", (2, 0): "length"}
    assert "nonsense" in next(event.error for event in people.events if event.finish == "error")


def test_the_record_says_what_runs_in_static_batches(made: Any, tiny: Any, load: Callable[..., Any]) -> None:
    own = load(tiny("llama"), Generate(mode="own"))
    assert own.facts["sampler"].startswith("generate, in static batches: the program asks")
    assert "recurrent state" in load(made("mamba"), Generate()).facts["sampler"]
    assert (
        load(tiny("llama"), Generate()).facts["sampler"]
        == "engine; beams in static batches, and prompts of more than text that cannot be stepped"
    )
    assert "num_beams" in own.limits.params


def test_closing_ends_a_batch_that_runs(made: Any, load: Callable[..., Any]) -> None:
    runner = load(made("mamba"), Generate())
    engine = runner.engine("main")
    engine.add(GenerateRequest(id=1, inputs={"input_ids": PROMPTS[0]}, params=Sampling(max_new_tokens=500)))
    engine.step()
    runner.close()
    assert engine.load().running == 0


def test_whole_inputs_reach_the_model_as_they_are_and_share_no_batch(made: Any, load: Callable[..., Any]) -> None:
    engine = load(made("bart"), Generate(head="seq2seq-lm")).engine("main")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(made("bart"))
    masks = [np.array([[int(at != hidden) for at in range(6)]]) for hidden in (1, 4)]
    for key, mask in enumerate(masks):
        inputs = {"input_ids": PROMPTS[key], "attention_mask": mask}
        engine.add(GenerateRequest(id=key, inputs=inputs, whole=("attention_mask",), params=Sampling(max_new_tokens=6)))
    steps = []
    while engine.load().running or engine.load().waiting:
        steps.append(engine.step())
    assert all(len({event.id for event in events}) == 1 for events in steps if events)
    for key, mask in enumerate(masks):
        ids = torch.from_numpy(PROMPTS[key])[None]
        row = model.generate(ids, attention_mask=torch.from_numpy(mask), max_new_tokens=6, do_sample=False)[0, 1:].tolist()
        found = [token for events in steps for event in events if event.id == key for token in event.tokens]
        assert found == [token for token in row if token != 1]
