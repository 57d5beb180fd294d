"""Vectors of tokens, sparse vectors and similarities are those that transformers and sentence-transformers' arithmetic give."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.contract import ConfigurationError, InvalidRequest, ModelCard
from modelport.tasks.embeddings import (
    SimilarityInputs,
    SimilarityRequest,
    SparseEmbeddingRequest,
    SparseEmbeddingResult,
    TokenEmbeddingRequest,
)
from modelport.tasks.text import MOST_INPUTS, EmbeddingRequest
from modelport.testing.checkpoints import tiny_bert, tiny_reader
from modelport.testing.skill import SkillSuite
from modelport_backend_cpu import CpuBackend
from modelport_skill_text_embedding import TextEmbedding

TEXTS = ["the cat", "it was a good day for the dog and his cat", "xylophone !"]


def card_of(folder: Path) -> ModelCard:
    config = json.loads((folder / "config.json").read_text())
    files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    return ModelCard(
        name="m",
        path=str(folder),
        model_type=config["model_type"],
        architectures=tuple(config["architectures"]),
        files=files,
        config=config,
    )


def tiny_splade(folder: Path, kind: str = "MLMTransformer", **pooling: str) -> Path:
    """A masked language model with the files of a `SparseEncoder`."""
    tiny_reader(folder, "masked-lm")
    types = (f"sentence_transformers.sparse_encoder.models.{name}" for name in (kind, "SpladePooling"))
    modules = [{"idx": i, "name": str(i), "path": ("", "1_SpladePooling")[i], "type": each} for i, each in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_SpladePooling").mkdir(exist_ok=True)
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "the day "}}))
    return folder


class Embeddings(SkillSuite):
    """The suite, with a helper of the tests below."""

    skill = TextEmbedding()
    backend = CpuBackend()

    def ask(self, folder: Path, task: str, *requests: Any) -> list[Any]:
        async def scenario(served: Any) -> list[Any]:
            return await asyncio.gather(*(served.ask(task, request) for request in requests))

        return self._serve(folder, scenario)


class TestDense(Embeddings):
    """One model, three tasks."""

    def card(self, folder: Path) -> ModelCard:
        return card_of(tiny_bert(folder))

    def requests(self) -> Any:
        pair = SimilarityInputs(source_sentence=TEXTS[0], sentences=TEXTS)
        return {
            "feature-extraction": [EmbeddingRequest(inputs=TEXTS)],
            "token-embedding": [TokenEmbeddingRequest(inputs=TEXTS), TokenEmbeddingRequest(inputs=[5, 6, 7])],
            "sentence-similarity": [SimilarityRequest(inputs=pair)],
        }

    def bad_requests(self) -> Any:
        similar, tokens = "sentence-similarity", "token-embedding"
        return [
            (tokens, TokenEmbeddingRequest(inputs=["a", ""]), "inputs.1"),
            (tokens, TokenEmbeddingRequest(inputs="a " * 100), "inputs"),
            (tokens, TokenEmbeddingRequest(inputs=["a good day for a cat and his dog " * 5] * 600), "inputs"),
            (similar, SimilarityRequest(inputs=SimilarityInputs(source_sentence="", sentences=["a"])), "inputs.source_sentence"),
            (similar, SimilarityRequest(inputs=SimilarityInputs(source_sentence="a", sentences=[])), "inputs.sentences"),
            (similar, SimilarityRequest(inputs=SimilarityInputs(source_sentence="a", sentences=["", "a"])), "inputs.sentences.0"),
        ]

    def test_one_model_does_all_three(self, tmp_path: Path) -> None:
        programs = self.skill.programs(self.card(tmp_path / "m"))
        assert len({programs[task] for task in self.requests()}) == 1


class TestSparse(Embeddings):
    """A SparseEncoder of sentence-transformers."""

    def card(self, folder: Path) -> ModelCard:
        return card_of(tiny_splade(folder))

    def requests(self) -> Any:
        return {"sparse-embedding": [SparseEmbeddingRequest(inputs=TEXTS), SparseEmbeddingRequest(inputs="cat")]}

    def bad_requests(self) -> Any:
        return [("sparse-embedding", SparseEmbeddingRequest(inputs="cat", prompt_name="nobody"), "prompt_name")]


def states(folder: Path, text: str, auto: Any = transformers.AutoModel) -> Any:
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(folder), auto.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt"))


def test_vectors_of_tokens_are_the_last_hidden_state(tmp_path: Path) -> None:
    (result,) = TestDense().ask(tmp_path, "token-embedding", TokenEmbeddingRequest(inputs=TEXTS))

    assert len({len(rows) for rows in result.results}) == 3
    for text, rows in zip(TEXTS, result.results, strict=True):
        expected = states(tmp_path / "main", text).last_hidden_state[0].numpy()
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_similarities_are_cosines_of_mean_states(tmp_path: Path) -> None:
    inputs = SimilarityInputs(source_sentence=TEXTS[1], sentences=TEXTS)
    (result,) = TestDense().ask(tmp_path, "sentence-similarity", SimilarityRequest(inputs=inputs))

    means = [states(tmp_path / "main", text).last_hidden_state[0].mean(0) for text in TEXTS]
    expected = [float(torch.cosine_similarity(means[1], mean, dim=0)) for mean in means]
    assert result.results == pytest.approx(expected, abs=1e-5)
    assert result.results[1] == pytest.approx(1.0, abs=1e-5)
    assert max(result.results[0], result.results[2]) < 0.99


@pytest.mark.parametrize(
    ("mode", "activation", "kind"),
    [("max", "relu", "MLMTransformer"), ("sum", "relu", "Transformer"), ("sum", "log1p_relu", "Transformer")],
)
def test_sparse_vectors_are_those_of_the_files_recipe(tmp_path: Path, mode: str, activation: str, kind: str) -> None:
    suite = TestSparse()
    suite.card = lambda folder: card_of(  # type: ignore[method-assign]
        tiny_splade(folder, kind, pooling_strategy=mode, activation_function=activation)
    )
    (result,) = suite.ask(tmp_path, "sparse-embedding", SparseEmbeddingRequest(inputs=TEXTS, prompt_name="query"))

    for text, entries in zip(TEXTS, result.results, strict=True):
        weights = states(tmp_path / "main", f"the day {text}", transformers.AutoModelForMaskedLM).logits[0].relu().log1p()
        weights = weights.log1p() if activation == "log1p_relu" else weights
        expected = weights.amax(0) if mode == "max" else weights.sum(0)
        assert [entry.index for entry in entries] == expected.nonzero()[:, 0].tolist()
        np.testing.assert_allclose([entry.value for entry in entries], expected[expected > 0].numpy(), atol=1e-5)


def test_any_model_of_masked_words_is_sparse_if_it_is_asked_for(tmp_path: Path) -> None:
    suite = TestSparse()
    suite.card = lambda folder: card_of(tiny_reader(folder, "masked-lm"))  # type: ignore[method-assign]
    (result,) = suite.ask(tmp_path, "sparse-embedding", SparseEmbeddingRequest(inputs="the cat"))

    logits = states(tmp_path / "main", "the cat", transformers.AutoModelForMaskedLM).logits[0]
    assert isinstance(result, SparseEmbeddingResult)
    assert [entry.value for entry in result.results[0]] == pytest.approx(
        [float(value) for value in logits.relu().log1p().amax(0) if value > 0], abs=1e-5
    )
    assert TextEmbedding().claim(card_of(tmp_path / "main")).tasks[0] == "feature-extraction"


@settings(max_examples=4, deadline=None)
@given(st.lists(st.sampled_from("the a cat dog good xylophone , !".split()), min_size=1, max_size=20))
def test_vectors_do_not_depend_on_who_shares_the_batch(tmp_path_factory: Any, words: list[str]) -> None:
    request = TokenEmbeddingRequest(inputs=" ".join(words))
    others = TokenEmbeddingRequest(inputs=TEXTS)

    (alone,) = TestDense().ask(tmp_path_factory.mktemp("alone"), "token-embedding", request)
    together = TestDense().ask(tmp_path_factory.mktemp("together"), "token-embedding", others, request)

    np.testing.assert_allclose(together[1].results[0], alone.results[0], atol=1e-5)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["MLMTransformer", "SpladePooling", "Normalize"], "has the steps MLMTransformer, SpladePooling, Normalize"),
        (["Router", "SpladePooling"], "has the steps Router, SpladePooling"),
    ],
)
def test_another_sparse_recipe_is_refused_in_a_sentence(tmp_path: Path, kinds: list[str], message: str) -> None:
    folder = tiny_splade(tmp_path / "m")
    modules = [{"idx": i, "path": "", "type": f"x.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ConfigurationError, match=message):
        TextEmbedding().programs(card_of(folder))


def test_crowds_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="at most 2048"):
        SimilarityInputs(source_sentence="a", sentences=["b"] * MOST_INPUTS)
    with pytest.raises(InvalidRequest, match="at most 2048"):
        TokenEmbeddingRequest(inputs=["a"] * (MOST_INPUTS + 1))
