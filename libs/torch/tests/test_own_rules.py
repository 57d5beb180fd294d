"""Rules that an entry declares, inputs that it declares, and attention that can be looked at, over a tiny Whisper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import (
    ArraySpec,
    Forward,
    Generate,
    GenerateRequest,
    InvalidRequest,
    Output,
    Program,
    Sampling,
    UnsupportedParameter,
)

START, END, NO_TIMES, TIMES = 50, 49, 59, 60
HEAD = "speech-seq2seq"
INPUTS = (ArraySpec("input_features", "float32", ("batch", 8, 40)), ArraySpec("decoder_input_ids", axes=("batch", "tokens")))
TIMED = Generate(head=HEAD, mode="own", inputs=INPUTS, rules=("whisper_timestamps",))
SOUND = np.random.default_rng(0).standard_normal((3, 8, 40)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whisper")
    layers = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8, "vocab_size": 81}
    ids = {f"{name}_token_id": END for name in ("pad", "bos", "eos")} | {"decoder_start_token_id": START}
    config = transformers.WhisperConfig(**layers, **sizes, **ids, max_source_positions=20, max_target_positions=32)
    torch.manual_seed(2)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    model.generation_config.no_timestamps_token_id = NO_TIMES
    model.generation_config._from_model_config = False
    model.save_pretrained(place)
    return place


def request(id: int, sound: np.ndarray, begin: list[int], **rest: Any) -> GenerateRequest:
    inputs: Mapping[str, np.ndarray] = {"input_features": sound, "decoder_input_ids": np.array(begin)}
    fields = {name: rest.pop(name) for name in ("logprobs",) if name in rest}
    return GenerateRequest(id=id, inputs=inputs, params=Sampling(**{"max_new_tokens": 12, **rest}), **fields)


def test_marks_of_time_hold_where_the_prompt_does_not_rule_them_out(folder: Path, crowd: Callable[..., Any]) -> None:
    people = crowd(folder, TIMED)
    people.engine.add(request(1, SOUND[0], [START]))
    people.engine.add(request(2, SOUND[0], [START, NO_TIMES]))
    people.drain()

    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    sound = torch.from_numpy(SOUND[:1])
    once = {"force_unique_generate_call": True, "max_new_tokens": 12, "do_sample": False}
    (timed,), (plain,) = (model.generate(sound, return_timestamps=times, **once).tolist() for times in (True, False))
    assert people.tokens[1, 0] == [token for token in timed[1:] if token != END]
    assert people.tokens[2, 0] == [token for token in plain[2:] if token != END]
    assert people.tokens[1, 0][0] >= TIMES


def test_declared_inputs_of_one_shape_share_a_batch_and_answers_are_those_of_one_alone(
    folder: Path, crowd: Callable[..., Any]
) -> None:
    people = crowd(folder, TIMED)
    for number, sound in enumerate(SOUND):
        people.engine.add(request(number, sound, [START], ignore_eos=True))
    people.engine.add(request(9, SOUND[0], [START, NO_TIMES], ignore_eos=True))
    assert sorted(event.id for event in people.step()) == [0, 1, 2]
    people.drain()
    for number, sound in enumerate(SOUND):
        alone = crowd(folder, TIMED)
        alone.engine.add(request(number, sound, [START], ignore_eos=True))
        alone.drain()
        assert people.tokens[number, 0] == alone.tokens[number, 0]
    undeclared = crowd(folder, Generate(head=HEAD, mode="own"))
    for number in (0, 1):
        undeclared.engine.add(request(number, SOUND[number], [START]))
    assert [event.id for event in undeclared.step()] == [0]
    undeclared.engine.close()


def test_tokens_tell_their_probability_after_the_rules(folder: Path, crowd: Callable[..., Any]) -> None:
    people = crowd(folder, TIMED)
    people.engine.add(request(1, SOUND[0], [START], logprobs=2, ignore_eos=True))
    people.engine.add(request(2, SOUND[1], [START], ignore_eos=True))
    people.drain()

    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    made = model.generate(
        torch.from_numpy(SOUND[:1]), return_timestamps=True, force_unique_generate_call=True, max_new_tokens=12,
        return_dict_in_generate=True, output_scores=True, eos_token_id=None, do_sample=False,
    )  # fmt: skip
    scores = torch.stack(made.scores)[:, 0].log_softmax(-1)
    events = [event for event in people.events if event.id == 1 and event.tokens]
    for event, row in zip(events, scores, strict=True):
        assert event.logprobs == pytest.approx((float(row[event.tokens[0]]),), abs=1e-4)
        assert event.top_logprobs is not None
        assert [each.token for each in event.top_logprobs[0]] == row.topk(2).indices.tolist()
    assert all(event.logprobs is None for event in people.events if event.id == 2)


def test_probabilities_need_rules_and_no_beams(folder: Path, crowd: Callable[..., Any]) -> None:
    people = crowd(folder, TIMED)
    with pytest.raises(InvalidRequest, match="not known where beams"):
        people.engine.add(request(1, SOUND[0], [START], logprobs=0, num_beams=2))
    plain = crowd(folder, Generate(head=HEAD, mode="own", inputs=INPUTS))
    with pytest.raises(UnsupportedParameter, match="logprobs"):
        plain.engine.add(request(1, SOUND[0], [START], logprobs=0))


@pytest.mark.parametrize(
    ("entry", "answer"),
    [
        (TIMED, "yes"),
        (Generate(head=HEAD, mode="own", rules=("whisper_timestamps", "rhyme")), "no"),
        (Generate(head=HEAD, rules=("whisper_timestamps",)), "no"),
    ],
)
def test_rules_that_are_not_known_are_refused_by_name(
    folder: Path, backend: Any, card: Callable[..., Any], device: Any, entry: Generate, answer: str
) -> None:
    verdict = backend.verdict(Program({"main": entry}), card(folder), (device,))

    assert verdict.answer == answer
    assert answer == "yes" or "rules over logits" in verdict.reason
    assert ("logprobs" in verdict.params) == (answer == "yes")


def test_attention_is_shown_and_generation_goes_on_as_it_was(folder: Path, load: Callable[..., Any]) -> None:
    look = Forward(head=HEAD, inputs=INPUTS, outputs=(Output("seen", source="cross_attentions.1"),))
    runner = load(folder, Program({"main": TIMED, "look": look}))
    batch = {"input_features": SOUND[:1], "decoder_input_ids": np.array([[START, 3, 4]])}

    seen = runner.submit("look", batch).result()["seen"]

    model = transformers.WhisperForConditionalGeneration.from_pretrained(folder, attn_implementation="eager")
    with torch.inference_mode():
        out = model(**{name: torch.from_numpy(value) for name, value in batch.items()}, output_attentions=True)
    np.testing.assert_allclose(seen, out.cross_attentions[1].numpy(), atol=1e-5)
    assert seen.shape == (1, 2, 3, 20)
    assert runner.facts["attention"] == "sdpa"
    assert runner._model_of("main").config._attn_implementation == "sdpa"


def test_a_fast_type_is_kept_from_models_whose_inputs_cannot_be_made_up(folder: Path, load: Callable[..., Any]) -> None:
    runner = load(folder, TIMED, dtype="fast")

    assert "no input could be made up" in runner.facts["calibration"]


def test_what_is_heard_counts_as_kept(folder: Path, crowd: Callable[..., Any]) -> None:
    """Twenty positions of sound and twelve tokens each: a cache of 64 tokens holds two."""
    people = crowd(folder, TIMED, cache_bytes=64 * 2 * 2 * 16 * 4)
    for number, sound in enumerate(SOUND):
        people.engine.add(request(number, sound, [START], ignore_eos=True))
    assert sorted(event.id for event in people.step()) == [0, 1]
    people.drain()
    assert {len(people.tokens[number, 0]) for number in range(3)} == {12}
