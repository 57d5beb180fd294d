"""Labels and rankings are those that transformers' logits give."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.contract import ConfigurationError, InputTooLong, InvalidRequest, ModelCard, SessionContext
from modelport.tasks.text import ClassificationRequest, RankingRequest
from modelport.tasks.zero_shot import ZeroShotRequest
from modelport.testing.checkpoints import tiny_cross_encoder
from modelport_skill_text_classification import TextClassification
from modelport_skill_text_classification.scores import activation_of, applied
from modelport_skill_text_classification.session import ClassificationSession

TOKENS = ("tokenization", "detokenization")


def _card(folder: Path, **fields: Any) -> ModelCard:
    config = json.loads((folder / "config.json").read_text())
    return ModelCard(
        name="m",
        path=str(folder),
        model_type=config["model_type"],
        architectures=tuple(config["architectures"]),
        context_length=config["max_position_embeddings"],
        files=tuple(sorted(path.name for path in folder.iterdir())),
        config=config | fields.pop("config", {}),
        **fields,
    )


def _session(card: ModelCard) -> ClassificationSession:
    programs = TextClassification().programs(card)
    tasks = tuple(programs)
    program = programs[tasks[0]]
    return ClassificationSession(
        SessionContext(card=card, task=tasks[0], tasks=tasks, program=program, checkpoints={"main": Path(card.path)})
    )


def _answer(session: ClassificationSession, request: Any) -> Any:
    """What a worker does, with transformers as the backend, and all items in one batch."""
    import torch
    from transformers import AutoModelForSequenceClassification

    items = session.preprocess(request)
    batch = session.collate("main", items, None)
    model = AutoModelForSequenceClassification.from_pretrained(session.context.card.path).eval()
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
    return session.postprocess(request, session.split("main", {"logits": logits}, items))


def _logits(folder: Path, *texts: str) -> np.ndarray:
    """transformers alone, one text or pair."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    with torch.inference_mode():
        return np.asarray(model(**tokenizer(*texts, return_tensors="pt", return_token_type_ids=True)).logits[0].numpy())


# ------------------------------------------------------------------------------------------------------ classification


def test_labels_are_softmaxed_and_sorted(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "m", labels=3)
    session = _session(_card(folder, config={"id2label": {"0": "bad", "1": "fair", "2": "good"}}))
    texts = ["the cat was good", "a bad day for it and for you and for his dog"]
    result = _answer(session, ClassificationRequest(inputs=list(texts)))
    for text, labels in zip(texts, result.results, strict=True):
        logits = _logits(folder, text).astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum()
        assert [label.label for label in labels] == [("bad", "fair", "good")[i] for i in np.argsort(-expected)]
        np.testing.assert_allclose([label.score for label in labels], np.sort(expected)[::-1], atol=1e-5)


def test_a_pair_is_told_apart_by_its_type_ids(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "m", labels=2)
    result = _answer(_session(_card(folder)), ClassificationRequest(inputs=[("the cat", "a dog")], function_to_apply="none"))
    scores = {label.label: label.score for label in result.results[0]}
    np.testing.assert_allclose([scores["LABEL_0"], scores["LABEL_1"]], _logits(folder, "the cat", "a dog"), atol=1e-5)


def test_top_k_keeps_the_best(tmp_path: Path) -> None:
    session = _session(_card(tiny_cross_encoder(tmp_path / "m", labels=3)))
    everything = _answer(session, ClassificationRequest(inputs="the cat")).results[0]
    assert _answer(session, ClassificationRequest(inputs="the cat", top_k=1)).results[0] == everything[:1]


@pytest.mark.parametrize(
    ("config", "labels", "activation"),
    [
        ({}, 3, "softmax"),
        ({"problem_type": "multi_label_classification"}, 3, "sigmoid"),
        ({}, 1, "sigmoid"),
        ({"problem_type": "regression"}, 1, "none"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, 1, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, 3, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "somebody.Else"}}, 1, "sigmoid"),
    ],
)
def test_scores_are_made_as_the_checkpoint_says(config: dict[str, Any], labels: int, activation: str) -> None:
    assert activation_of(config, labels) == activation


def test_scores_of_extreme_logits_are_finite() -> None:
    logits = np.array([[-1e4, 1e4]], dtype=np.float32)
    assert applied("sigmoid", logits).tolist() == [[0.0, 1.0]]
    assert applied("softmax", logits).tolist() == [[0.0, 1.0]]


def test_the_configuration_overrides_the_activation(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "m", labels=2)
    assert _session(_card(folder, options={"activation": "sigmoid"})).activation == "sigmoid"
    with pytest.raises(ConfigurationError, match=r"options\.activation is 'relu'"):
        _session(_card(folder, options={"activation": "relu"}))


# ------------------------------------------------------------------------------------------------------------- ranking


def test_documents_are_ranked_by_the_scores_of_their_pairs(tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "m")
    session = _session(_card(folder))
    documents = ["the dog", "a good day for you", "it was the cat and he was bad"]
    logits = np.array([_logits(folder, "the cat", document)[0] for document in documents], dtype=np.float64)
    raw = _answer(session, RankingRequest(query="the cat", documents=documents, raw_scores=True)).results
    assert [entry.index for entry in raw] == list(np.argsort(-logits))
    np.testing.assert_allclose([entry.score for entry in raw], np.sort(logits)[::-1], atol=1e-5)
    scored = _answer(session, RankingRequest(query="the cat", documents=documents, top_n=2)).results
    assert [entry.index for entry in scored] == [entry.index for entry in raw[:2]]
    np.testing.assert_allclose([entry.score for entry in scored], 1 / (1 + np.exp(-np.sort(logits)[::-1][:2])), atol=1e-5)


def test_documents_can_be_cut_to_a_number_of_tokens(tmp_path: Path) -> None:
    session = _session(_card(tiny_cross_encoder(tmp_path / "m")))
    items = session.preprocess(RankingRequest(query="the", documents=["a good dog"], max_tokens_per_document=1))
    assert list(items[0].arrays["input_ids"]) == session.tokenizer.encode("the", "a").ids


def test_long_pairs_are_refused_unless_they_may_be_cut(tmp_path: Path) -> None:
    session = _session(_card(tiny_cross_encoder(tmp_path / "m"), max_length=8))
    documents = ["a", "the cat and the dog and the day"]
    with pytest.raises(InputTooLong, match="The pair has 12 tokens, and this model takes at most 8") as refused:
        session.preprocess(RankingRequest(query="the", documents=documents))
    assert refused.value.param == "documents.1"
    items = session.preprocess(RankingRequest(query="the", documents=documents, truncate=True))
    assert [item.cost for item in items] == [5, 8]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (RankingRequest(query="", documents=["a"]), "query"),
        (RankingRequest(query="a", documents=[]), "documents"),
        (RankingRequest(query="a", documents=["a"], top_n=0), "top_n"),
        (RankingRequest(query="a", documents=["a"], max_tokens_per_document=0), "max_tokens_per_document"),
        (ClassificationRequest(inputs=""), "inputs"),
        (ClassificationRequest(inputs=[]), "inputs"),
        (ClassificationRequest(inputs=["a", ("", "b")]), "inputs.1"),
        (ClassificationRequest(inputs="a", top_k=0), "top_k"),
    ],
)
def test_bad_requests_are_refused_by_field(tmp_path: Path, request_: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        _session(_card(tiny_cross_encoder(tmp_path / "m"))).preprocess(request_)
    assert refused.value.param == param


# ------------------------------------------------------------------------------------------------------------ contract


@pytest.mark.parametrize(("labels", "tasks"), [(1, ("text-ranking", "text-classification")), (2, ("text-classification",))])
def test_one_label_ranks_and_several_classify(labels: int, tasks: tuple[str, ...]) -> None:
    config = {"id2label": {str(i): str(i) for i in range(labels)}}
    card = ModelCard(name="m", architectures=("BertForSequenceClassification",), files=("tokenizer.json",), config=config)
    claim = TextClassification().claim(card)
    assert claim is not None
    assert (claim.tasks, claim.score) == ((*tasks, *TOKENS), 100)
    programs = TextClassification().programs(card)
    assert set(programs) == {*tasks, *TOKENS}
    assert len({program.digest for program in programs.values()}) == 1, "tasks share one loaded model"


def test_other_models_are_not_claimed() -> None:
    for architecture, files in (("BertModel", ("tokenizer.json",)), ("ViTForSequenceClassification", ())):
        assert TextClassification().claim(ModelCard(name="m", architectures=(architecture,), files=files)) is None


def test_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, modelport_skill_text_classification as m; m.register_skills();"
        "print([n for n in ('torch', 'transformers', 'tokenizers', 'jinja2') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of natural language inference whose labels stand in BART's order."""
    names = ("contradiction", "neutral", "entailment")
    ids = {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    return tiny_cross_encoder(tmp_path_factory.mktemp("judge") / "m", labels=3, **ids)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("labels", [["dog", "cat", "a bad day"], ["dog"]])
def test_labels_of_the_request_are_scored_as_transformers_does(judge: Path, labels: list[str], multi_label: bool) -> None:
    from transformers import AutoTokenizer, pipeline

    names = ["input_ids", "token_type_ids", "attention_mask"]  # as BERT's own tokenizer gives them
    tokenizer = AutoTokenizer.from_pretrained(judge, model_input_names=names)
    texts = ["the cat was good", "he and his dog for a day at that"]
    expected = pipeline("zero-shot-classification", str(judge), tokenizer=tokenizer)(
        texts, labels, hypothesis_template="it is {} !", multi_label=multi_label
    )
    request = ZeroShotRequest(inputs=texts, candidate_labels=labels, hypothesis_template="it is {} !", multi_label=multi_label)
    found = _answer(_session(_card(judge)), request).results
    for mine, reference in zip(found, expected, strict=True):
        assert [each.label for each in mine] == reference["labels"]
        assert [each.score for each in mine] == pytest.approx(reference["scores"], abs=1e-5)


def test_a_model_of_inference_serves_both_tasks_and_its_hub_tag_decides_which_is_first(judge: Path) -> None:
    own, tagged = (TextClassification().claim(_card(judge, tasks=tasks)) for tasks in ((), ("zero-shot-classification",)))
    assert own is not None
    assert own.tasks == ("text-classification", "zero-shot-classification", *TOKENS)
    assert tagged is not None
    assert tagged.tasks == ("zero-shot-classification", "text-classification", *TOKENS)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"candidate_labels": []}, "at least one label"),
        ({"candidate_labels": ["a", ""]}, "label is empty"),
        ({"candidate_labels": ["a"], "hypothesis_template": "it is so"}, "where the label would go"),
        ({"candidate_labels": ["a"] * 1001}, "at most 1000"),
        ({"inputs": ["x"] * 3, "candidate_labels": ["a"] * 1000}, "3000 pairs"),
    ],
)
def test_labels_that_say_nothing_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        ZeroShotRequest(**{"inputs": "the cat"} | fields)


def test_a_text_too_long_for_its_labels_is_refused(judge: Path) -> None:
    with pytest.raises(InputTooLong, match="Shorten it"):
        _session(_card(judge)).preprocess(ZeroShotRequest(inputs=["a", "good " * 90], candidate_labels=["dog"]))
