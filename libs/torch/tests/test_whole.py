"""Prompts with images are stepped beside texts, and everybody gets what transformers' own generate gives alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from modelport.contract import Generate, GenerateRequest, InputTooLong, Sampling
from modelport_torch.engine import beside

ENTRY = Generate(head="image-text-to-text")
TEXTS = [np.random.default_rng(seed).integers(5, 90, length) for seed, length in ((1, 4), (2, 30))]
NEW = 120


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> Any:
    made = transformers.AutoModelForImageTextToText.from_pretrained(tiny("llava")).eval()
    made.generation_config.eos_token_id = None
    return made


def prompt(model: Any, seed: int, length: int) -> dict[str, np.ndarray]:
    """Tokens, among them sixteen of an image, and its pixels."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(5, 90, length)
    ids = np.concatenate([ids[:2], np.full(16, model.config.image_token_index), ids[2:]])
    return {"input_ids": ids, "pixel_values": draw.standard_normal((1, 3, 32, 32)).astype(np.float32) * 3}


def reference(model: Any, inputs: dict[str, np.ndarray], new: int = NEW) -> list[int]:
    ids = torch.from_numpy(inputs["input_ids"])[None]
    more = {name: torch.from_numpy(value) for name, value in inputs.items() if name != "input_ids"}
    options = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **more, **options)[0, ids.shape[1] :].tolist()


def add(people: Any, id: int, inputs: dict[str, np.ndarray], **rest: Any) -> None:
    fields = {name: rest.pop(name) for name in ("n", "logprobs") if name in rest}
    params = Sampling(**{"max_new_tokens": NEW, "ignore_eos": True} | rest)
    people.engine.add(GenerateRequest(id=id, inputs=inputs, whole=("pixel_values",), params=params, **fields))


@pytest.mark.parametrize("room", [4096, 512], ids=["room for all", "some give their row back"])
def test_images_and_texts_share_steps_and_get_what_generate_gives(room: int, model: Any, tiny: Any, crowd: Any) -> None:
    people = crowd(tiny("llava"), ENTRY, cache_bytes=2 * 2 * 2 * 16 * 4 * room, options={"prefix_tokens": 0})
    images = [prompt(model, seed, length) for seed, length in ((1, 8), (2, 25), (3, 8))]
    for key, inputs in enumerate(images):
        add(people, key, inputs)
    for key, ids in enumerate(TEXTS, len(images)):
        people.add(key, ids, max_new_tokens=NEW, ignore_eos=True)
    together, gave_back, running = 0, False, 0
    while people.engine.load().running or people.engine.load().waiting:
        events = people.step()
        together = max(together, len({event.id for event in events}))
        gave_back |= people.engine.load().running < running and not any(event.finish for event in events)
        running = people.engine.load().running

    expected = [reference(model, inputs) for inputs in [*images, *({"input_ids": ids} for ids in TEXTS)]]
    assert [people.tokens[key, 0] for key in range(5)] == expected
    assert expected[0] != expected[2], "a model that sees nothing proves nothing"
    assert (together, gave_back) == ((5, False) if room == 4096 else (4, True))


def test_what_static_batches_do_not_know_is_honoured_of_images(model: Any, tiny: Any, crowd: Any) -> None:
    people = crowd(tiny("llava"), ENTRY)
    inputs = prompt(model, 1, 8)
    add(people, 1, inputs, max_new_tokens=4, logit_bias={7: 1000.0}, logprobs=1)
    add(people, 2, inputs, max_new_tokens=8, do_sample=True, seed=5, n=2)
    people.drain()
    add(people, 3, inputs, max_new_tokens=8, do_sample=True, seed=6)
    people.drain()
    assert people.tokens[1, 0] == [7] * 4
    assert people.tokens[2, 1] == people.tokens[3, 0] != people.tokens[2, 0]


def test_a_model_that_says_something_else_in_steps_runs_in_static_batches(
    model: Any, tiny: Any, crowd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = crowd(tiny("llava"), ENTRY)
    tried = []
    check = beside.check_whole

    def misplaced(model: Any, device: Any, request: Any) -> None:
        tried.append(request.id)
        model.rope_deltas = torch.tensor([[3]])  # as if places were not positions
        try:
            check(model, device, request)
        finally:
            del model.rope_deltas

    monkeypatch.setattr(beside, "check_whole", misplaced)
    images = [prompt(model, seed, 8) for seed in (1, 2)]
    for key, inputs in enumerate(images):
        add(people, key, inputs, max_new_tokens=6)
    assert tried == [0], "once is enough"
    while people.engine.load().running or people.engine.load().waiting:
        assert len({event.id for event in people.step()}) <= 1
    assert [people.tokens[key, 0] for key in (0, 1)] == [reference(model, inputs, 6) for inputs in images]


def test_a_prompt_that_is_too_long_is_refused_before_it_is_tried(model: Any, tiny: Any, crowd: Any) -> None:
    longest = json.loads((tiny("llava") / "config.json").read_text())["text_config"]["max_position_embeddings"]
    people = crowd(tiny("llava"), ENTRY, max_length=longest)
    with pytest.raises(InputTooLong):
        add(people, 1, prompt(model, 1, longest))
    assert people.engine.load().waiting == 0
