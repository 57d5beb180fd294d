"""Embeddings are those that transformers and the checkpoint's own recipe give."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelport.contract import (
    ConfigurationError,
    Dense,
    Forward,
    InputTooLong,
    InvalidRequest,
    ModelCard,
    Normalize,
    Pool,
    SessionContext,
    UnsupportedParameter,
)
from modelport.contract.reduce import dense_reader, finish
from modelport.tasks.text import EmbeddingRequest
from modelport.testing.checkpoints import tiny_bert, tiny_llama
from modelport_skill_text_embedding import TextEmbedding
from modelport_skill_text_embedding.recipe import recipe_of
from modelport_skill_text_embedding.session import EmbeddingSession

DEMO = Path(os.environ.get("MODELPORT_DEMO_DIR", "~/.cache/modelport/demo")).expanduser() / "all-minilm-l6-v2"
real = pytest.mark.real
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


def _card(folder: Path, **fields: Any) -> ModelCard:
    config = json.loads((folder / "config.json").read_text())
    files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
    return ModelCard(
        name="m",
        path=str(folder),
        model_type=config["model_type"],
        architectures=tuple(config["architectures"]),
        context_length=config.get("max_position_embeddings"),
        files=files,
        config=config,
        **fields,
    )


def _session(card: ModelCard) -> EmbeddingSession:
    program = TextEmbedding().programs(card)["feature-extraction"]
    checkpoints = {"main": Path(card.path)}
    tasks = ("feature-extraction",)
    return EmbeddingSession(SessionContext(card=card, task=tasks[0], tasks=tasks, program=program, checkpoints=checkpoints))


def _embed(session: EmbeddingSession, request: EmbeddingRequest) -> np.ndarray:
    """What a worker does, with transformers as the backend: one batch of all items, reductions by the core."""
    import torch
    from transformers import AutoModel

    assert session.context.program is not None
    entry = session.context.program.entries["main"]
    assert isinstance(entry, Forward)
    items = session.preprocess(request)
    batch = session.collate("main", items, None)
    model = AutoModel.from_pretrained(session.context.card.path, dtype=torch.float32).eval()
    with torch.inference_mode():
        raw = model(**{name: torch.from_numpy(array) for name, array in batch.items()}).last_hidden_state.numpy()
    outputs = finish(entry.outputs, {"embedding": raw}, batch, frozenset(), dense_reader(session.context.folder))
    return session.postprocess(request, session.split("main", outputs, items)).embeddings


def _sentence_transformer(folder: Path, pooling: dict[str, Any] = MEAN, *further: str, **files: Any) -> Path:
    """A tiny BERT with sentence-transformers' files around it."""
    tiny_bert(folder)
    kinds = ["Transformer", "Pooling", *further]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds) if i)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", pooling)
    for name, content in files.items():
        _write(folder / f"{name}.json", content)
    return folder


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# ------------------------------------------------------------------------------------------------------------ results


@real
def test_the_demo_model_embeds_as_computed_by_hand() -> None:
    if not DEMO.is_dir():
        pytest.skip(f"needs {DEMO}: run `modelport demo`")
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["A cat sits on the mat.", "Stocks fell sharply on Monday, analysts said, after a week of unexpected gains."]
    ours = _embed(_session(_card(DEMO)), EmbeddingRequest(inputs=list(texts)))
    tokenizer, model = AutoTokenizer.from_pretrained(str(DEMO)), AutoModel.from_pretrained(str(DEMO)).eval()
    for text, row in zip(texts, ours, strict=True):
        with torch.inference_mode():
            encoded = tokenizer(text, return_tensors="pt", padding=False, truncation=False)
            mean = model(**encoded).last_hidden_state[0].mean(0)
        expected = (mean / mean.norm()).numpy()
        assert float(expected @ row) > 0.99999
        np.testing.assert_allclose(row, expected, atol=2e-6)


@pytest.mark.parametrize(
    ("flag", "pick"),
    [
        ("pooling_mode_mean_tokens", lambda states: states.mean(0)),
        ("pooling_mode_cls_token", lambda states: states[0]),
        ("pooling_mode_max_tokens", lambda states: states.max(0)),
        ("pooling_mode_lasttoken", lambda states: states[-1]),
    ],
)
def test_pooling_is_that_of_the_checkpoint_whatever_it_is_batched_with(tmp_path: Path, flag: str, pick: Any) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = _sentence_transformer(tmp_path / "m", {flag: True})
    texts = ["the cat", "it was a good day for the dog and his cat"]
    rows = _embed(_session(_card(folder)), EmbeddingRequest(inputs=list(texts)))
    tokenizer, model = AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder)).eval()
    for text, row in zip(texts, rows, strict=True):
        with torch.inference_mode():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        np.testing.assert_allclose(row, pick(states), atol=1e-5)


def test_dense_layers_and_normalisation_follow(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = _sentence_transformer(tmp_path / "m", MEAN, "Dense", "Normalize")
    _write(folder / "2_Dense" / "config.json", {"activation_function": "torch.nn.modules.activation.Tanh"})
    weight = np.random.default_rng(0).normal(size=(8, 32)).astype(np.float32)
    save_file({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
    session = _session(_card(folder))
    plain = _embed(_session(_card(_sentence_transformer(tmp_path / "plain"))), EmbeddingRequest(inputs="the cat"))
    raw = _embed(session, EmbeddingRequest(inputs="the cat", normalize=False))
    np.testing.assert_allclose(raw, np.tanh(plain @ weight.T), atol=1e-5)
    np.testing.assert_allclose(_embed(session, EmbeddingRequest(inputs="the cat")), raw / np.linalg.norm(raw), atol=1e-6)
    assert recipe_of(_card(folder)).chain == (Pool("mean"), Dense("2_Dense/model.safetensors", "tanh"))


def test_a_request_chooses_normalisation_and_dimensions(tmp_path: Path) -> None:
    session = _session(_card(_sentence_transformer(tmp_path / "m")))
    raw = _embed(session, EmbeddingRequest(inputs="the cat"))
    unit = _embed(session, EmbeddingRequest(inputs="the cat", normalize=True))
    short = _embed(session, EmbeddingRequest(inputs="the cat", normalize=True, dimensions=5))
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw), atol=1e-6)
    np.testing.assert_allclose(short, raw[:, :5] / np.linalg.norm(raw[:, :5]), atol=1e-6)
    assert _embed(session, EmbeddingRequest(inputs="the cat", dimensions=5)).tolist() == raw[:, :5].tolist()
    assert unit.dtype == np.float32


def test_a_plain_encoder_is_pooled_by_mean_and_a_language_model_by_its_last_token(tmp_path: Path) -> None:
    bert, llama = _card(tiny_bert(tmp_path / "b")), _card(tiny_llama(tmp_path / "l"))
    assert (recipe_of(bert).chain, recipe_of(llama).chain) == ((Pool("mean"),), (Pool("last"),))
    assert _embed(_session(llama), EmbeddingRequest(inputs=["one", "three"])).shape == (2, 64)


def test_the_configuration_overrides_pooling_and_normalisation(tmp_path: Path) -> None:
    folder = _sentence_transformer(tmp_path / "m", MEAN)
    recipe = recipe_of(_card(folder, options={"pooling": "cls", "normalize": True}))
    assert (recipe.chain, recipe.normalize) == ((Pool("cls"),), True)
    with pytest.raises(ConfigurationError, match=r"options\.pooling is 'median'; it can be cls, last, lasttoken, max, mean"):
        recipe_of(_card(folder, options={"pooling": "median"}))


def test_prompts_are_put_before_the_text(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "the day ", "document": "a "}, "default_prompt_name": "document"}
    session = _session(_card(_sentence_transformer(tmp_path / "m", MEAN, config_sentence_transformers=prompts)))
    tokenizer = session.tokenizer
    for name, text in (("query", "the day cat"), (None, "a cat")):
        (item,) = session.preprocess(EmbeddingRequest(inputs="cat", prompt_name=name))
        assert list(item.arrays["input_ids"]) == tokenizer.encode(text).ids
    with pytest.raises(InvalidRequest, match="it has document, query") as refused:
        session.preprocess(EmbeddingRequest(inputs="cat", prompt_name="passage"))
    assert refused.value.param == "prompt_name"


def test_a_prompt_that_is_not_pooled_is_refused_rather_than_pooled(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "the "}}
    folder = _sentence_transformer(tmp_path / "m", {**MEAN, "include_prompt": False}, config_sentence_transformers=prompts)
    with pytest.raises(UnsupportedParameter):
        _session(_card(folder)).preprocess(EmbeddingRequest(inputs="cat", prompt_name="query"))


# ------------------------------------------------------------------------------------------------------------- inputs


def test_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    session = _session(_card(tiny_bert(tmp_path / "m")))
    ids = session.tokenizer.encode("the cat").ids
    for inputs, count in ((ids, 1), ([ids, ids[:2]], 2)):
        items = session.preprocess(EmbeddingRequest(inputs=inputs))
        assert len(items) == count
        assert list(items[0].arrays["input_ids"]) == ids
        assert items[0].cost == len(ids)


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ("", "inputs"),
        ([], "inputs"),
        (["the", ""], "inputs.1"),
        ([[]], "inputs.0"),
        ([5, "the"], "inputs.0"),
        ([[5], [10**6]], "inputs.1.0"),
        ([5, -1], "inputs.1"),
    ],
)
def test_bad_inputs_are_refused_by_place(tmp_path: Path, inputs: Any, param: str) -> None:
    session = _session(_card(tiny_bert(tmp_path / "m")))
    with pytest.raises(InvalidRequest) as refused:
        session.preprocess(EmbeddingRequest(inputs=inputs))
    assert refused.value.param == param


def test_long_inputs_are_refused_unless_they_may_be_cut(tmp_path: Path) -> None:
    folder = _sentence_transformer(tmp_path / "m", MEAN, sentence_bert_config={"max_seq_length": 6})
    session = _session(_card(folder))
    long = "the cat and the dog and the day"
    with pytest.raises(InputTooLong, match="has 10 tokens, and this model takes at most 6") as refused:
        session.preprocess(EmbeddingRequest(inputs=["the", long]))
    assert refused.value.param == "inputs.1"
    for side, kept in (("right", "the cat and the"), ("left", "dog and the day")):
        (item,) = session.preprocess(EmbeddingRequest(inputs=long, truncate=True, truncation_direction=side))
        assert list(item.arrays["input_ids"]) == session.tokenizer.encode(kept).ids
    (item,) = session.preprocess(EmbeddingRequest(inputs=[5] * 9, truncate=True))
    assert item.cost == 6


def test_the_configured_length_limits_below_the_models(tmp_path: Path) -> None:
    assert _session(_card(tiny_bert(tmp_path / "m"), max_length=5)).limit == 5
    assert _session(_card(tiny_bert(tmp_path / "n"))).limit == 64


@pytest.mark.parametrize("dimensions", [0, -3, 33])
def test_impossible_dimensions_are_refused(tmp_path: Path, dimensions: int) -> None:
    session = _session(_card(tiny_bert(tmp_path / "m")))
    with pytest.raises(InvalidRequest) as refused:
        _embed(session, EmbeddingRequest(inputs="the", dimensions=dimensions))
    assert refused.value.param == "dimensions"


# ------------------------------------------------------------------------------------------------------ claim, program


@pytest.mark.parametrize(
    ("architecture", "files", "score"),
    [
        ("BertModel", ("tokenizer.json", "modules.json"), 100),
        ("Qwen3ForCausalLM", ("tokenizer.json", "modules.json"), 100),
        ("BertModel", ("tokenizer.json",), 60),
        ("BertForMaskedLM", ("tokenizer.json",), 10),
        ("LlamaForCausalLM", ("tokenizer.json",), 5),
        ("BertForSequenceClassification", ("tokenizer.json",), None),
        ("BertModel", (), None),
        ("ViTModel", ("tokenizer.json", "preprocessor_config.json"), None),
    ],
)
def test_a_claim_is_as_sure_as_the_checkpoint_is_clear(architecture: str, files: tuple[str, ...], score: int | None) -> None:
    claim = TextEmbedding().claim(ModelCard(name="m", architectures=(architecture,), files=files))
    assert (claim.score if claim else None) == score


def test_the_program_leaves_the_last_normalisation_to_the_request(tmp_path: Path) -> None:
    folder = _sentence_transformer(tmp_path / "m", MEAN, "Normalize")
    entry = TextEmbedding().programs(_card(folder))["feature-extraction"].forward("main")
    assert [spec.name for spec in entry.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert not any(isinstance(step, Normalize) for output in entry.outputs for step in output.chain)
    assert recipe_of(_card(folder)).normalize


@pytest.mark.parametrize(
    ("pooling", "further", "message"),
    [
        ({"pooling_mode_weightedmean_tokens": True}, (), "pools by weightedmean"),
        ({**MEAN, "pooling_mode_max_tokens": True}, (), "pools by mean and max"),
        (MEAN, ("LSTM",), "has a step 'LSTM'"),
        (MEAN, ("Dense",), "has no 2_Dense/model.safetensors"),
    ],
)
def test_an_unknown_recipe_is_refused_in_a_sentence(tmp_path: Path, pooling: Any, further: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TextEmbedding().programs(_card(_sentence_transformer(tmp_path / "m", pooling, *further)))


# -------------------------------------------------------------------------------------------------------------- imports


def _modules_after(code: str) -> str:
    check = "print([n for n in ('torch', 'transformers', 'tokenizers', 'jinja2') if n in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {check}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_plugin_imports_nothing_heavy() -> None:
    assert _modules_after("import modelport_skill_text_embedding as m; m.register_skills()") == "[]"


def test_a_session_needs_no_torch(tmp_path: Path) -> None:
    card = _card(_sentence_transformer(tmp_path / "m"))
    import msgspec

    (tmp_path / "card").write_bytes(msgspec.msgpack.encode(card))
    code = (
        "import msgspec; from pathlib import Path; from modelport.contract import *; from modelport.tasks.text import *;"
        "from modelport_skill_text_embedding import TextEmbedding;"
        f"card = msgspec.msgpack.decode(Path({str(tmp_path / 'card')!r}).read_bytes(), type=ModelCard); skill = TextEmbedding();"
        "program = skill.programs(card)['feature-extraction'];"
        "session = skill.session(SessionContext(card=card, task='x', tasks=(), program=program,"
        " checkpoints={'main': Path(card.path)})); session.preprocess(EmbeddingRequest(inputs='the cat'))"
    )
    assert _modules_after(code) == "['tokenizers']"
