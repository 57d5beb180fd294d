"""Entities, fillings and answers are those that transformers gives."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, ModelCard, SessionContext
from modelport.contract.reduce import finish
from modelport.tasks.tokens import AnsweringRequest, Entity, MaskRequest, Question, TokenRequest
from modelport.testing.checkpoints import tiny_reader
from modelport_skill_token_classification import TokenClassification
from modelport_skill_token_classification.entities import without_overlaps

TEXTS = ["the cat was good", "he and his dog for a day at that", "xylophone , dog and cat !"]


def open_session(folder: Path, **fields: Any) -> Any:
    config = json.loads((folder / "config.json").read_text())
    card = ModelCard(
        name="m",
        path=str(folder),
        model_type=config["model_type"],
        architectures=tuple(config["architectures"]),
        context_length=config["max_position_embeddings"],
        files=tuple(sorted(path.name for path in folder.iterdir())),
        config=config,
        **fields,
    )
    task, program = next(iter(TokenClassification().programs(card).items()))
    context = SessionContext(card=card, task=task, tasks=(task,), program=program, checkpoints={"main": folder})
    return TokenClassification().session(context)


def answer(session: Any, request: Any, *, alone: bool = False) -> Any:
    """What a worker does, with transformers as the backend: all items in one batch, or each alone."""
    program = session.context.program.entries["main"]
    auto = {
        "token-classification": transformers.AutoModelForTokenClassification,
        "masked-lm": transformers.AutoModelForMaskedLM,
        "question-answering": transformers.AutoModelForQuestionAnswering,
    }[program.head]
    model = auto.from_pretrained(session.context.card.path).eval()
    items = session.preprocess(request)
    rows = []
    for group in [[item] for item in items] if alone else [items]:
        batch = session.collate("main", group, None)
        tensors = {name: torch.from_numpy(array) for name, array in batch.items() if name != "mask_positions"}
        with torch.inference_mode():
            raw = {name: value.numpy() for name, value in model(**tensors).items()}
        rows += session.split("main", finish(program.outputs, raw, batch, frozenset()), group)
    return session.postprocess(request, rows)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_session(tiny_reader(tmp_path_factory.mktemp("tagger") / "m"))


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_session(tiny_reader(tmp_path_factory.mktemp("filler") / "m", "masked-lm"))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_session(tiny_reader(tmp_path_factory.mktemp("reader") / "m", "question-answering"))


# ------------------------------------------------------------------------------------------------ token-classification


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_entities_are_those_of_transformers(tagger: Any, strategy: str) -> None:
    pipe = transformers.pipeline("token-classification", tagger.context.card.path)
    request = TokenRequest(inputs=TEXTS, aggregation_strategy=strategy, ignore_labels=[])
    for text, entities in zip(TEXTS, answer(tagger, request).results, strict=True):
        expected = pipe(text, aggregation_strategy=strategy, ignore_labels=[])
        assert len(entities) == len(expected) > 1
        for entity, other in zip(entities, expected, strict=True):
            for field, value in other.items():
                ours = getattr(entity, field)
                assert ours == pytest.approx(value, abs=1e-5) if field == "score" else ours == value, field


def test_ignored_labels_are_left_out(tagger: Any) -> None:
    everything = answer(tagger, TokenRequest(inputs=TEXTS[1], ignore_labels=[])).results[0]
    some = answer(tagger, TokenRequest(inputs=TEXTS[1], ignore_labels=[everything[0].entity])).results[0]
    assert some == [entity for entity in everything if entity.entity != everything[0].entity]


def test_a_long_text_is_refused_or_read_in_windows(tagger: Any) -> None:
    long = " ".join(["the cat and his dog"] * 40)
    with pytest.raises(InputTooLong, match="set stride"):
        answer(tagger, TokenRequest(inputs=long))
    entities = answer(tagger, TokenRequest(inputs=long, aggregation_strategy="simple", stride=16, ignore_labels=[])).results[0]
    assert entities[0].start == 0
    assert entities[-1].end == len(long)
    ends = [(entity.start, entity.end) for entity in entities]
    assert ends == sorted(ends)
    assert all(first[1] <= second[0] for first, second in pairwise(ends)), "windows overlap, entities do not"
    with pytest.raises(InvalidRequest, match="aggregation_strategy"):
        answer(tagger, TokenRequest(inputs=long, stride=16))


def test_of_overlapping_entities_the_longest_stays_and_of_equal_ones_the_surest() -> None:
    def entity(start: int, end: int, score: float) -> Entity:
        return Entity(entity_group="X", score=score, word="", start=start, end=end)

    table = [entity(0, 4, 0.5), entity(2, 9, 0.4), entity(9, 12, 0.2), entity(9, 12, 0.3)]
    assert without_overlaps(table) == [table[1], table[3]]


# ---------------------------------------------------------------------------------------------------------- fill-mask


def test_fillings_are_those_of_transformers(filler: Any) -> None:
    pipe = transformers.pipeline("fill-mask", filler.context.card.path)
    texts = ["the [MASK] was good", "he and [MASK] dog"]
    for text, (fillings,) in zip(texts, answer(filler, MaskRequest(inputs=texts, top_k=4)).results, strict=True):
        for filling, other in zip(fillings, pipe(text, top_k=4), strict=True):
            assert (filling.token, filling.token_str, filling.sequence) == (other["token"], other["token_str"], other["sequence"])
            assert filling.score == pytest.approx(other["score"], abs=1e-5)


def test_each_mask_has_its_own_fillings(filler: Any) -> None:
    pipe = transformers.pipeline("fill-mask", filler.context.card.path)
    text = "the [MASK] and his [MASK]"
    both = answer(filler, MaskRequest(inputs=[text, "a [MASK]"], top_k=3)).results
    expected = [[other["token"] for other in mask] for mask in pipe(text, top_k=3)]
    assert [[filling.token for filling in mask] for mask in both[0]] == expected
    assert len(both[1]) == 1, "the padding of the shorter list of masks is nobody's filling"


def test_targets_are_kept_to(filler: Any) -> None:
    fillings = answer(filler, MaskRequest(inputs="the [MASK]", targets=["cat", "dog"])).results[0][0]
    assert {filling.token_str for filling in fillings} == {"cat", "dog"}
    with pytest.raises(InvalidRequest, match="must be a single one") as refused:
        answer(filler, MaskRequest(inputs="the [MASK]", targets=["cat", "xylophone"]))
    assert refused.value.param == "targets.1"


def test_a_text_without_a_mask_says_what_a_mask_is(filler: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"this model's is \[MASK\]"):
        answer(filler, MaskRequest(inputs="the cat"))


def test_a_tokenizer_without_a_mask_is_refused_at_the_load(tmp_path: Path) -> None:
    folder = tiny_reader(tmp_path / "m", "masked-lm")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="no mask token"):
        open_session(folder)


# ------------------------------------------------------------------------------------------------- question-answering


def best_span(session: Any, question: str, context: str, longest: int) -> tuple[float, int, int]:
    """The likeliest span by transformers' own tokenizer and model, found by looking at each."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(session.context.card.path)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(session.context.card.path).eval()
    inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True, return_token_type_ids=True)
    offsets = inputs.pop("offset_mapping")[0]
    with torch.inference_mode():
        out = model(**inputs)
    places = [0] + [i for i, sequence in enumerate(inputs.sequence_ids(0)) if sequence == 1]
    starts, ends = (torch.softmax(logits[0, places].double(), 0) for logits in (out.start_logits, out.end_logits))
    spans = [
        (float(starts[i] * ends[j]), int(offsets[places[i]][0]), int(offsets[places[j]][1]))
        for i in range(1, len(places))
        for j in range(i, min(i + longest, len(places)))
    ]
    return max(spans)


@pytest.mark.parametrize("context", ["the dog was at the day and he was bad", "a cat , his dog and that good day"])
def test_answers_are_the_likeliest_spans(reader: Any, context: str) -> None:
    request = AnsweringRequest(inputs=Question("is it good", context), align_to_words=False, max_answer_len=3)
    (found,) = answer(reader, request).results[0]
    score, start, end = best_span(reader, "is it good", context, 3)
    assert (found.start, found.end, found.answer) == (start, end, context[start:end])
    assert found.score == pytest.approx(score, rel=1e-4)


def test_an_answer_is_widened_to_words(reader: Any) -> None:
    context = "the xylophone was good"
    whole = answer(reader, AnsweringRequest(inputs=Question("is it", context), top_k=20)).results[0]
    for found in whole:
        assert context[: found.start][-1:] in ("", " ")
        assert context[found.end : found.end + 1] in ("", " ")
    assert len({(found.start, found.end) for found in whole}) == len(whole)


def test_a_long_context_is_read_in_windows(reader: Any) -> None:
    context = " ".join(["the cat and his dog"] * 60)
    found = answer(reader, AnsweringRequest(inputs=Question("is it", context), doc_stride=8, top_k=3)).results[0]
    assert len(found) == 3
    assert all(context[each.start : each.end] == each.answer for each in found)


def test_no_answer_competes_where_it_may(reader: Any) -> None:
    question = Question("is it", "the cat")
    found = answer(reader, AnsweringRequest(inputs=question, handle_impossible_answer=True, top_k=50)).results[0]
    assert [each.answer for each in found].count("") == 1
    assert "" not in [each.answer for each in answer(reader, AnsweringRequest(inputs=question, top_k=50)).results[0]]


def test_a_question_without_room_for_its_context_is_refused(reader: Any) -> None:
    with pytest.raises(InputTooLong, match="no room") as refused:
        answer(reader, AnsweringRequest(inputs=[Question("the cat " * 40, "a dog")]))
    assert refused.value.param == "inputs.0.question"


# ----------------------------------------------------------------------------------------------------------- for all


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from("the a cat dog good xylophone , !".split()), min_size=1, max_size=12), min_size=2, max_size=5
    )
)
def test_an_answer_does_not_depend_on_who_shares_the_batch(tagger: Any, lists: list[list[str]]) -> None:
    request = TokenRequest(inputs=[" ".join(words) for words in lists], ignore_labels=[])
    together, apart = answer(tagger, request), answer(tagger, request, alone=True)
    for one, other in zip(together.results, apart.results, strict=True):
        assert [(e.entity, e.start, e.end) for e in one] == [(e.entity, e.start, e.end) for e in other]
        np.testing.assert_allclose([e.score for e in one], [e.score for e in other], atol=1e-5)


@pytest.mark.parametrize("inputs", ["", " ", [], ["a", ""]])
def test_nothing_to_read_is_refused(tagger: Any, inputs: Any) -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        answer(tagger, TokenRequest(inputs=inputs))
