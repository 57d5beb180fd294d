"""Tokens of a text, without the model: what a skill over text serves beside its own tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from modelport.contract import InvalidRequest
from modelport.tasks.tokenization import DetokenizationRequest, TokenizationRequest
from modelport.testing.backend import card_of
from modelport.testing.checkpoints import write_byte_tokenizer, write_word_tokenizer
from modelport.testing.fake_network import write_tiny_network
from modelport.testing.fakes import NumpyBackend
from modelport.testing.skill import SkillSuite
from modelport_hf.tokenizer import load_tokenizer
from modelport_hf.tokenizing import detokenized, tokenized
from modelport_skill_text_generation import TextGeneration

TEXTS = ["The cat, and a dog!", "é is a letter", "", "unheard of 猫"]


@pytest.fixture(scope="module", params=[write_word_tokenizer, write_byte_tokenizer])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    request.param(made)
    return made


@pytest.mark.parametrize("special", [True, False])
def test_tokens_are_those_of_transformers_and_their_places_hold_their_texts(folder: Path, special: bool) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folder)
    found = tokenized(load_tokenizer(folder), TokenizationRequest(inputs=TEXTS, add_special_tokens=special)).results
    expected = reference(TEXTS, add_special_tokens=special, return_offsets_mapping=True, return_special_tokens_mask=True)
    assert [[span.id for span in spans] for spans in found] == expected["input_ids"]
    for text, spans, offsets in zip(TEXTS, found, expected["offset_mapping"], strict=True):
        for span, place in zip(spans, offsets, strict=True):
            if span.start is None:
                assert (span.special, span.text) == (True, reference.convert_ids_to_tokens(span.id))
            else:
                assert (span.start, span.stop) == place
                assert text[span.start : span.stop] == span.text


@pytest.mark.parametrize("skip", [True, False])
def test_texts_of_tokens_are_those_of_transformers(folder: Path, skip: bool) -> None:
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folder)
    ids = reference(TEXTS[:2])["input_ids"]
    tokenizer = load_tokenizer(folder)
    expected = [reference.decode(each, skip_special_tokens=skip) for each in ids]
    assert detokenized(tokenizer, DetokenizationRequest(ids=ids, skip_special_tokens=skip)).results == expected
    assert detokenized(tokenizer, DetokenizationRequest(ids=ids[0], skip_special_tokens=skip)).results == expected[:1]


@pytest.mark.parametrize(("ids", "param"), [([], "ids"), ([5, 10**6], "ids.1"), ([[5], [-1]], "ids.1.0"), ([[]], "ids.0")])
def test_ids_that_are_none_of_the_models_are_refused(folder: Path, ids: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        detokenized(load_tokenizer(folder), DetokenizationRequest(ids=ids))
    assert refused.value.param == param


def test_a_request_is_bounded_and_of_one_kind() -> None:
    with pytest.raises(InvalidRequest, match="at most 2048"):
        TokenizationRequest(inputs=["a"] * 2049)
    with pytest.raises(InvalidRequest, match="mixes"):
        DetokenizationRequest(ids=[5, [6]])


def test_both_tasks_share_the_loaded_model_and_leave_its_device_alone(tmp_path: Path) -> None:
    class Suite(SkillSuite):
        skill = TextGeneration()
        backend = NumpyBackend()

        def card(self, folder: Path) -> Any:
            pieces = ["</s>", *("?" for _ in range(299))]
            write_tiny_network(folder, pieces=pieces, architectures=["LlamaForCausalLM"], max_position_embeddings=64)
            write_byte_tokenizer(folder)
            return card_of(folder)

    async def ask(served: Any) -> None:
        assert len(served.parts) == 1, "one loaded model"
        await served.ask("tokenization", TokenizationRequest(inputs="the cat"))
        await served.ask("detokenization", DetokenizationRequest(ids=[5]))
        assert served.usage.prompt_tokens == 0, "nothing was sent to the device"

    asyncio.run(Suite()._with_worker(tmp_path, ask))
