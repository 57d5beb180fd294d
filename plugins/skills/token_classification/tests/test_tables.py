"""Answers from tables are those of transformers, alone, in company and in turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.contract import InputTooLong, InvalidRequest, ModelCard
from modelport.tasks.table import MOST_CELLS, TableAnswersResult, TableQuestionRequest
from modelport.testing.checkpoints import write_word_tokenizer
from modelport.testing.skill import SkillSuite, assert_close
from modelport_backend_cpu import CpuBackend
from modelport_skill_token_classification import TokenClassification
from modelport_skill_token_classification.table_tokenizer import frame_of, load_table_tokenizer

TABLE = {
    "cat": ["good day", "bad cat", "12", "dog and cat"],
    "dog": ["3", "44", "5.5", "12"],
    "that": ["1 1 2001", "a", "the", "it"],
}
QUERIES = ["is it a good dog", "the cat", "and of these , on that day ?"]


def tiny_tapas(folder: Path, **config: Any) -> Path:
    """A TapasForQuestionAnswering with a small vocabulary, whose cells are chosen about half of the time."""
    write_word_tokenizer(folder)
    vocabulary = transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    for path in folder.iterdir():
        path.unlink()
    (folder / "vocab.txt").write_text("\n".join([*words, "[EMPTY]"]))
    transformers.TapasTokenizer(folder / "vocab.txt", model_max_length=64).save_pretrained(folder)
    made = transformers.TapasConfig(
        vocab_size=len(words) + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        **config,
    )
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = transformers.TapasForQuestionAnswering(made)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    model.save_pretrained(folder)
    return folder


def card_of(folder: Path) -> ModelCard:
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    files = tuple(sorted(path.name for path in folder.iterdir()))
    return ModelCard(
        name="m", path=str(folder), model_type="tapas", architectures=tuple(config["architectures"]), files=files, config=config
    )


AGGREGATING = {
    "num_aggregation_labels": 4,
    "aggregation_labels": {0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"},
    "no_aggregation_label_index": 0,
}
KINDS = {
    "aggregating": AGGREGATING,
    "selecting": {"select_one_column": True},
    "with empty columns": {"select_one_column": True, "allow_empty_column_selection": True},
}


class Tables(SkillSuite):
    """The suite, with helpers of the tests below."""

    skill = TokenClassification()
    backend = CpuBackend()
    kind = "aggregating"

    def card(self, folder: Path) -> ModelCard:
        return card_of(tiny_tapas(folder, **KINDS[self.kind]))

    def requests(self) -> Any:
        short = {"a": ["cat", "bad"], "b": ["dog", "7"]}
        return {
            "table-question-answering": [
                TableQuestionRequest(query=QUERIES, table=TABLE),
                TableQuestionRequest(query="a cat", table=short),
                TableQuestionRequest(query=QUERIES[1:], table=short, sequential=True),
            ]
        }

    def bad_requests(self) -> Any:
        task, long = "table-question-answering", {"a": ["good cat"] * 40}
        return [
            (task, TableQuestionRequest(query="", table=TABLE), "query"),
            (task, TableQuestionRequest(query=[], table=TABLE), "query"),
            (task, TableQuestionRequest(query=["a", " "], table=TABLE), "query.1"),
            (task, TableQuestionRequest(query="a", table={}), "table"),
            (task, TableQuestionRequest(query="a", table={"a": []}), "table"),
            (task, TableQuestionRequest(query="a", table={"a": ["1"], "b": []}), "table"),
            (task, TableQuestionRequest(query="a", table={"a": ["1 " * 3000]}), "table"),
            (task, TableQuestionRequest(query="a", table=long, truncation=False), "query"),
            (task, TableQuestionRequest(query="the cat " * 60, table=TABLE), "query"),
            (task, TableQuestionRequest(query="a", table={str(i): ["a"] for i in range(300)}), "table"),
        ]

    def ask(self, folder: Path, *requests: TableQuestionRequest) -> list[Any]:
        async def scenario(served: Any) -> list[Any]:
            return await asyncio.gather(*(served.ask("table-question-answering", request) for request in requests))

        return self._serve(folder, scenario)


class TestAggregating(Tables):
    """A model that says what to do with cells."""


class TestSelecting(Tables):
    """A model that chooses cells of one column."""

    kind = "selecting"


class TestWithEmptyColumns(Tables):
    """A model that looks at what is no cell, and would count padding with it."""

    kind = "with empty columns"


@pytest.fixture
def numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    """pandas as transformers was written for: cells of a row can be asked for by number."""
    original = pd.Series.__getitem__

    def get(self: Any, key: Any) -> Any:
        return self.iloc[key] if isinstance(key, int) and not pd.api.types.is_integer_dtype(self.index) else original(self, key)

    monkeypatch.setattr(pd.Series, "__getitem__", get)


def expected(folder: Path, request: TableQuestionRequest) -> list[dict[str, Any]]:
    pipe = transformers.pipeline("table-question-answering", str(folder))
    found = pipe(pd.DataFrame(request.table, dtype=object), request.query, sequential=request.sequential)
    return found if isinstance(found, list) else [found]


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sequential", [False, True])
def test_answers_are_those_of_transformers(tmp_path: Path, kind: str, sequential: bool) -> None:
    suite = Tables()
    suite.kind = kind
    requests = [TableQuestionRequest(query=[query], table=TABLE, sequential=sequential) for query in QUERIES]
    if sequential:
        requests = [TableQuestionRequest(query=QUERIES, table=TABLE, sequential=True)]

    results = suite.ask(tmp_path, *requests)

    several = False
    for request, result in zip(requests, results, strict=True):
        for ours, theirs in zip(result.results, expected(tmp_path / "main", request), strict=True):
            assert [ours.answer, ours.cells, ours.aggregator] == [theirs["answer"], theirs["cells"], theirs.get("aggregator", "")]
            assert ours.coordinates == theirs["coordinates"]
            several = several or bool(ours.cells)
    assert several, "an answer without cells proves nothing"


@pytest.mark.usefixtures("numbered")
@pytest.mark.parametrize("rows", [5, 40, 300])
def test_rows_that_do_not_fit_are_left_out_as_transformers_does(tmp_path: Path, rows: int) -> None:
    folder = tiny_tapas(tmp_path / "m", **AGGREGATING)
    table = {"a": ["good cat"] * rows, "b": [str(i) for i in range(rows)]}
    options = {"queries": "a good cat", "truncation": "drop_rows_to_fit", "max_length": 64}

    theirs = transformers.TapasTokenizer.from_pretrained(folder)(table=pd.DataFrame(table, dtype=object), **options)

    assert dict(load_table_tokenizer(folder)(table=frame_of(table), **options)) == dict(theirs)
    assert len(theirs["input_ids"]) <= 64


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.sampled_from("the a cat dog good 12 3.5 , !".split()), min_size=1, max_size=12),
    st.integers(1, 5),
)
def test_an_answer_does_not_depend_on_who_shares_the_batch(tmp_path_factory: Any, words: list[str], rows: int) -> None:
    request = TableQuestionRequest(query=" ".join(words), table={"a": (words * rows)[:rows], "b": [str(i) for i in range(rows)]})
    suite = Tables()

    (alone,) = suite.ask(tmp_path_factory.mktemp("alone"), request)
    together = suite.ask(tmp_path_factory.mktemp("together"), TableQuestionRequest(query=QUERIES, table=TABLE), request)

    assert isinstance(alone, TableAnswersResult)
    assert_close(together[1], alone, 1e-5)


def test_a_table_of_very_many_cells_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidRequest, match="at most 4096"):
        TableQuestionRequest(query="a", table={"a": ["1"] * (MOST_CELLS + 1)})
    with pytest.raises(InvalidRequest, match="65536"):
        TableQuestionRequest(query="a", table={"a": ["1" * 70_000]})


def test_a_table_that_is_too_long_says_so(tmp_path: Path) -> None:
    request = TableQuestionRequest(query="a", table={"a": ["good cat"] * 40}, truncation=False)
    with pytest.raises(InputTooLong, match="64 tokens"):
        Tables().ask(tmp_path, request)
