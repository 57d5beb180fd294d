"""Texts are those that transformers' `generate` makes of the same weights, through a real worker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport import Engine
from modelport.contract import InputTooLong, InvalidRequest, ModelCard
from modelport.testing.checkpoints import write_word_tokenizer
from modelport_skill_text2text import Text2Text

SIZES = {"vocab_size": 160, "d_model": 32, "pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
LAYERS = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
FEED = {"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
TEXTS = ["the cat was good", "he and his dog for a day at that", "a bad day"]
PREFIXES = {
    "summarization": {"prefix": "this is : "},
    "translation_en_to_de": {"prefix": "as in dog : "},
    "translation_en_to_fr": {"prefix": "as in cat : "},
}


def t5() -> tuple[Any, dict[str, Any]]:
    shape = {"d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "task_specific_params": PREFIXES}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**SIZES, **shape)), {"max_length": 12}


def bart() -> tuple[Any, dict[str, Any]]:
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**SIZES, **LAYERS, **FEED, forced_eos_token_id=3))
    return model, {"num_beams": 3, "max_length": 14, "min_length": 6, "length_penalty": 2.0, "early_stopping": True}


def marian() -> tuple[Any, dict[str, Any]]:
    return transformers.MarianMTModel(transformers.MarianConfig(**SIZES, **LAYERS, **FEED)), {"max_length": 10}


def nllb() -> tuple[Any, dict[str, Any]]:
    sizes = SIZES | {"vocab_size": 240, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    return transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**sizes, **LAYERS, **FEED)), {"max_length": 10}


KINDS: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {"t5": t5, "bart": bart, "marian": marian, "nllb": nllb}


def write(folder: Path, kind: str) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, own = KINDS[kind]()
        for name, parameter in model.named_parameters():  # wide enough that answers depend on texts
            if parameter.dim() > 1 and not re.search(r"\.(q|k|q_proj|k_proj)\.", name):
                torch.nn.init.normal_(parameter, std=0.5)
    # no token twice, and some of them: random weights would say one for ever, or none, whatever the text
    model.generation_config.update(**{"no_repeat_ngram_size": 1, "min_length": 6, **own})
    model.save_pretrained(folder)
    if kind == "nllb":
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters]
        transformers.NllbTokenizer(vocab={word: at for at, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    else:
        write_word_tokenizer(folder, 64)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("text2text")
    for kind in KINDS:
        write(place / kind, kind)
    return place


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(*(f"{kind}={folder / kind}" for kind in KINDS), backend="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(folder: Path) -> Callable[..., str]:
    """What transformers makes of one text."""
    loaded = {
        kind: (
            transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / kind).eval(),
            transformers.AutoTokenizer.from_pretrained(folder / kind),
        )
        for kind in KINDS
    }

    def generate(kind: str, text: str, source: str | None = None, **options: Any) -> str:
        model, tokenizer = loaded[kind]
        if source:
            tokenizer.src_lang = source
        encoded = tokenizer(text, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        with torch.inference_mode():
            (made,) = model.generate(**encoded, **options)
        return str(tokenizer.decode(made, skip_special_tokens=True))

    return generate


def ask(engine: Engine, model: str, task: str, **request: Any) -> list[Any]:
    found: list[Any] = engine.run(task, model, request).result.results
    return found


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_a_text_becomes_what_generate_makes_of_it(engine: Engine, reference: Callable[..., str], kind: str) -> None:
    """With the checkpoint's own lengths and beams, several texts of different lengths at once."""
    found = [each.generated_text for each in ask(engine, kind, "text2text-generation", inputs=TEXTS)]
    assert found == [reference(kind, text) for text in TEXTS]
    assert len(set(found)) == len(found)


def test_a_summary_gets_the_prefix_of_the_checkpoint(engine: Engine, reference: Callable[..., str]) -> None:
    (found,) = ask(engine, "t5", "summarization", inputs=TEXTS[1])
    assert found.summary_text == reference("t5", f"this is : {TEXTS[1]}")


def test_a_pair_of_languages_chooses_the_prefix(engine: Engine, reference: Callable[..., str]) -> None:
    (found,) = ask(engine, "t5", "translation", inputs=TEXTS[1], src_lang="en", tgt_lang="fr")
    assert found.translation_text == reference("t5", f"as in cat : {TEXTS[1]}")


def test_languages_are_marked_as_the_tokenizer_does(engine: Engine, reference: Callable[..., str], folder: Path) -> None:
    languages = transformers.AutoTokenizer.from_pretrained(folder / "nllb")
    first = languages.convert_tokens_to_ids("fra_Latn")
    given = {"src_lang": "deu_Latn", "tgt_lang": "fra_Latn"}
    found = [each.translation_text for each in ask(engine, "nllb", "translation", inputs=TEXTS, **given)]
    assert found == [reference("nllb", text, "deu_Latn", forced_bos_token_id=first) for text in TEXTS]
    (other,) = ask(engine, "nllb", "translation", inputs=TEXTS[0], **given | {"tgt_lang": "eng_Latn"})
    assert other.translation_text != found[0]


@pytest.mark.parametrize(
    ("model", "fields", "names"),
    [
        ("nllb", {"tgt_lang": "french"}, r"tgt_lang is 'french', which this model does not know.*Languages that it knows"),
        ("nllb", {}, "tgt_lang is missing: this model translates into several languages"),
        ("t5", {"src_lang": "en"}, "en to any language is not one pair of this model's. It translates en to de, en to fr"),
        ("t5", {"src_lang": "de"}, "de to any language is no pair"),
        ("marian", {"tgt_lang": "de"}, "tgt_lang is 'de', and this model translates one pair of languages only"),
    ],
)
def test_wrong_languages_are_refused_with_the_right_ones(engine: Engine, model: str, fields: dict[str, str], names: str) -> None:
    with pytest.raises(InvalidRequest, match=names):
        ask(engine, model, "translation", inputs="a", **fields)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 7},
        {"max_length": 7},
        {"num_beams": 2, "max_new_tokens": 8},
        {"no_repeat_ngram_size": 2, "max_length": 9},
    ],
)
def test_parameters_mean_what_they_mean_to_generate(
    engine: Engine, reference: Callable[..., str], options: dict[str, Any]
) -> None:
    (found,) = ask(engine, "t5", "text2text-generation", inputs=TEXTS[0], generate_parameters=options)
    assert found.generated_text == reference("t5", TEXTS[0], **options)


def test_a_seed_repeats_what_was_drawn(engine: Engine) -> None:
    options = {"do_sample": True, "temperature": 2.0, "seed": 5, "max_new_tokens": 8}
    drawn = [ask(engine, "t5", "text2text-generation", inputs="a", generate_parameters=options)[0] for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_text_too_long_is_refused_and_may_be_cut(engine: Engine, reference: Callable[..., str]) -> None:
    text = "good " * 100
    with pytest.raises(InputTooLong, match=r"inputs\.1 has 102 tokens, and this model takes 64\. Shorten it, or set truncation"):
        ask(engine, "bart", "text2text-generation", inputs=["a", text])
    (found,) = ask(engine, "bart", "text2text-generation", inputs=text, truncation="only_first")
    assert found.generated_text == reference("bart", "good " * 62)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"inputs": []}, "inputs is empty"),
        ({"inputs": ["a"] * 65}, "at most 64"),
        ({"inputs": "a", "generate_parameters": {"max_length": 1}}, "leaves no token"),
        ({"inputs": "a", "generate_parameters": {"max_length": 9, "max_new_tokens": 9}}, "say the same thing"),
        ({"inputs": "a", "generate_parameters": {"watermark": True}}, "watermark"),
    ],
)
def test_bad_requests_name_the_field(engine: Engine, request_: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        ask(engine, "t5", "text2text-generation", **request_)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1.0), ("top_p", 1.5), ("max_new_tokens", 0), ("repetition_penalty", 0.0), ("num_beams", 0)],
)
def test_a_number_out_of_range_is_named_as_the_request_names_it(engine: Engine, name: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=name) as refused:
        ask(engine, "t5", "text2text-generation", inputs="a", generate_parameters={name: value})
    assert refused.value.param == f"generate_parameters.{name}"


@settings(max_examples=8, deadline=None)
@given(st.lists(st.text("abc dog.", min_size=1, max_size=30), min_size=2, max_size=4))
def test_texts_do_not_change_each_other(engine: Engine, texts: list[str]) -> None:
    together = ask(engine, "marian", "text2text-generation", inputs=texts)
    alone = [ask(engine, "marian", "text2text-generation", inputs=text)[0] for text in texts]
    assert together == alone


@pytest.mark.parametrize(
    ("kind", "first"), [("t5", "summarization"), ("bart", "text2text-generation"), ("marian", "translation")]
)
def test_the_checkpoint_says_which_task_comes_first(folder: Path, kind: str, first: str) -> None:
    config = json.loads((folder / kind / "config.json").read_text())
    files = tuple(path.name for path in (folder / kind).iterdir())
    card = ModelCard(name="m", architectures=tuple(config["architectures"]), config=config, files=files)
    claim = Text2Text().claim(card)
    assert claim is not None
    assert claim.tasks[0] == first
    assert set(claim.tasks) == {task.name for task in Text2Text.tasks}


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("LlavaForConditionalGeneration", {"vision_config": {}, "is_encoder_decoder": False}),
        ("WhisperForConditionalGeneration", {"is_encoder_decoder": True, "num_mel_bins": 80}),
        ("BertForMaskedLM", {}),
    ],
)
def test_what_is_not_text_on_both_sides_is_left_to_others(architecture: str, config: dict[str, Any]) -> None:
    assert Text2Text().claim(ModelCard(name="m", architectures=(architecture,), config=config)) is None
