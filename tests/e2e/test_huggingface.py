"""The Hub's own client against a real server with all API plugins; answers are those of transformers on the same weights."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import InferenceClient, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, ValidationError
from huggingface_hub.utils._http import default_client_factory
from PIL import Image

from modelport.testing.checkpoints import tiny_bert, tiny_cross_encoder, tiny_llama, tiny_reader, write_word_tokenizer

from .conftest import Server

TEXT = "he and his dog for a day"
PROMPT = "Once upon"


def tiny_t5(folder: Path) -> Path:
    sizes = {"vocab_size": 160, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    config = transformers.T5Config(**sizes, pad_token_id=0, eos_token_id=3, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config)
    model.generation_config.update(no_repeat_ngram_size=1, min_length=6, max_length=12)
    model.save_pretrained(folder)
    write_word_tokenizer(folder, 64)
    return folder


def tiny_vit(folder: Path) -> Path:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 5}
    transformers.ViTForImageClassification(transformers.ViTConfig(image_size=32, patch_size=8, **sizes)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_judge(folder: Path) -> Path:
    names = dict(enumerate(("contradiction", "neutral", "entailment")))
    return tiny_cross_encoder(folder, labels=3, id2label=names, label2id={name: at for at, name in names.items()})


MAKERS: dict[str, Callable[[Path], Path]] = {
    "chat": tiny_llama,
    "embedder": tiny_bert,
    "ranker": tiny_cross_encoder,
    "judge": tiny_judge,
    "tagger": tiny_reader,
    "filler": lambda folder: tiny_reader(folder, "masked-lm"),
    "reader": lambda folder: tiny_reader(folder, "question-answering"),
    "t5": tiny_t5,
    "org/vit": tiny_vit,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("huggingface")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = {name: make(folder / name.replace("/", "-")) for name, make in MAKERS.items()}
    tables = {name: f'[models."{name}"]\nsource = "{path}"\nbackend = "cpu"\ndtype = "float32"\n' for name, path in made.items()}
    tables["chat"] += 'aliases = ["dummy"]\n'
    models = "".join(tables.values())
    running = Server(folder, f'[apis.openai]\n[apis.native]\n[apis.huggingface]\nmodel = "chat"\n{models}')
    running.made = made
    set_client_factory(httpx.Client)  # the client's own refuses to call anybody where HF_HUB_OFFLINE is set
    yield running
    set_client_factory(default_client_factory)
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[Callable[[str], InferenceClient]]:
    """The official client of a model's address."""
    with InferenceClient(provider="hf-inference") as made:

        def of(path: str) -> InferenceClient:
            made.model = f"{server.url}{path}"
            return made

        yield of


@cache
def loaded(server: Server, name: str, kind: Any) -> Any:
    return kind.from_pretrained(server.made[name]).eval()


def encoded(server: Server, name: str, *texts: Any) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        server.made[name], model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )
    return tokenizer(*texts, return_tensors="pt")


@torch.inference_mode()
def logits_of(server: Server, name: str, kind: Any, *texts: Any) -> torch.Tensor:
    return loaded(server, name, kind)(**encoded(server, name, *texts)).logits[0]


# ---------------------------------------------------------------------------------------------------------- generation


@pytest.fixture(scope="module")
def greedy(server: Server) -> tuple[list[int], str, list[float]]:
    """Twelve greedy tokens after the prompt, their text, and their log probabilities, of transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(server.made["chat"])
    model = loaded(server, "chat", transformers.AutoModelForCausalLM)
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    with torch.inference_mode():
        made = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)[0]
        scores = torch.log_softmax(model(made[None]).logits[0], -1)
    new = made[ids.shape[1] :].tolist()
    logprobs = [float(scores[ids.shape[1] - 1 + at, token]) for at, token in enumerate(new)]
    return new, tokenizer.decode(new, skip_special_tokens=True), logprobs


def test_the_end_token_is_known(server, client):
    assert client("/models/chat").get_endpoint_info()["model_id"] == "chat"  # which reads the checkpoint
    info = server.client.get("/v1/models/chat/info").json()
    assert info["end_tokens"] == [transformers.AutoConfig.from_pretrained(server.made["chat"]).eos_token_id]


@pytest.mark.parametrize("path", ["", "/v1", "/models/chat", "/models/chat/v1"])
def test_the_client_chats_at_the_address_of_the_server_and_of_a_model(client, path):
    answers = [
        client(path).chat_completion([{"role": "user", "content": PROMPT}], max_tokens=4, temperature=0, seed=1) for _ in range(2)
    ]
    assert [answer.model for answer in answers] == ["chat", "chat"]
    assert answers[0].choices == answers[1].choices
    assert answers[0].usage.completion_tokens == 4


@pytest.mark.parametrize("path", ["", "/models/chat", "/generate", "/models/chat/pipeline/text-generation"])
def test_text_plainly_and_as_a_stream(client, greedy, path):
    _, text, _ = greedy
    assert client(path).text_generation(PROMPT, max_new_tokens=12) == text
    assert "".join(client(path).text_generation(PROMPT, max_new_tokens=12, stream=True)) == text
    assert client(path).text_generation(PROMPT, max_new_tokens=12, return_full_text=True) == PROMPT + text


def test_details_of_tokens(client, greedy):
    tokens, text, logprobs = greedy
    asked = {"max_new_tokens": 12, "details": True, "decoder_input_details": True, "top_n_tokens": 2}
    found = client("/models/chat").text_generation(PROMPT, **asked)
    details = found.details
    assert found.generated_text == text
    assert [token.id for token in details.tokens] == tokens
    assert [token.logprob for token in details.tokens] == pytest.approx(logprobs, abs=1e-4)
    assert [max(tops, key=lambda top: top["logprob"])["id"] for tops in details.top_tokens] == tokens, "greedy"
    assert len(details.prefill) == len(PROMPT)  # a byte is a token
    *_, last = client("/models/chat").text_generation(PROMPT, max_new_tokens=12, details=True, stream=True)
    assert (last.generated_text, last.details.finish_reason, last.details.generated_tokens) == (text, "length", 12)
    assert last.details.input_length == len(PROMPT)


def test_a_grammar_a_stop_a_cut_and_several(client, greedy):
    chat = client("/models/chat")
    _, text, _ = greedy
    assert chat.text_generation(PROMPT, grammar={"type": "regex", "value": "(yes|no)"}, max_new_tokens=8) in ("yes", "no")
    stop = text[3:5]
    assert chat.text_generation(PROMPT, stop=[stop], max_new_tokens=12) == text[: text.index(stop) + len(stop)]
    cut = chat.text_generation("Twice and " + PROMPT, truncate=len(PROMPT), max_new_tokens=12)
    assert cut == text, "only the last tokens were read"
    drawn = [chat.text_generation(PROMPT, do_sample=True, seed=5, max_new_tokens=8) for _ in range(2)]
    assert drawn[0] == drawn[1]
    found = chat.text_generation(PROMPT, best_of=3, do_sample=True, details=True, max_new_tokens=8)
    means = [np.mean([token.logprob for token in each.tokens]) for each in (found.details, *found.details.best_of_sequences)]
    assert (len(means), max(means)) == (3, means[0])


def test_what_is_wrong_is_told_to_the_client(client):
    with pytest.raises(ValidationError, match="max_new_tokens"):
        client("/models/chat").text_generation(PROMPT, max_new_tokens=0)
    with pytest.raises(ValidationError, match="context holds 512"):
        client("/generate").text_generation("x" * 600)
    with pytest.raises(HfHubHTTPError, match="There is no model"):
        client("/models/nobody").feature_extraction("a")
    with pytest.raises(HfHubHTTPError, match="image"):
        client("/models/org/vit").image_classification(b"no image")


def test_chat_by_the_models_address_is_the_chat_of_openai(server, client):
    messages = [{"role": "user", "content": "hi"}]
    plain = server.client.post(
        "/v1/chat/completions", json={"model": "chat", "messages": messages, "max_tokens": 8, "temperature": 0}
    ).json()["choices"][0]["message"]["content"]
    for path in ("/models/chat", "/models/chat/v1"):
        answer = client(path).chat_completion(messages, max_tokens=8, temperature=0)
        assert (answer.choices[0].message.content, answer.usage.completion_tokens) == (plain, 8)
        chunks = client(path).chat_completion(messages, max_tokens=8, temperature=0, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == plain


def test_tokens_are_those_of_the_tokenizer(server):
    chat = transformers.AutoTokenizer.from_pretrained(server.made["chat"])
    found = server.client.post("/tokenize", json={"inputs": "Hé!"}).json()
    expected = chat("Hé!", return_offsets_mapping=True)
    assert [each["id"] for each in found] == expected["input_ids"]
    assert [(each["start"], each["stop"]) for each in found] == expected["offset_mapping"]
    messages = [{"role": "user", "content": "hi"}]
    rendered = server.client.post("/chat_tokenize", json={"messages": messages}).json()
    text = chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered["templated_text"] == text
    assert [each["id"] for each in rendered["tokenize_response"]] == chat(text, add_special_tokens=False)["input_ids"]
    ids = chat("Hé!")["input_ids"]
    assert server.client.post("/decode", json={"ids": ids}).json() == ["Hé!"]
    assert server.client.get("/info").json()["max_total_tokens"] == 512


# ------------------------------------------------------------------------------------------------------------- encoders


def test_embeddings_similarities_and_teis_route(server, client):
    texts = [TEXT, "a bad day", "the cat"]
    with torch.inference_mode():
        states = [
            loaded(server, "embedder", transformers.AutoModel)(**encoded(server, "embedder", text)).last_hidden_state[0].mean(0)
            for text in texts
        ]
    expected = torch.stack([state / state.norm() for state in states]).numpy()
    embedder = client("/models/embedder")
    np.testing.assert_allclose(embedder.feature_extraction(TEXT, normalize=True), expected[0], atol=1e-5)
    found = client("/models/embedder/pipeline/feature-extraction").feature_extraction(texts, normalize=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    likeness = client("/models/embedder").sentence_similarity(TEXT, other_sentences=texts[1:])
    np.testing.assert_allclose(likeness, expected[1:] @ expected[0], atol=1e-5)
    response = server.client.post("/embed", json={"inputs": TEXT})
    np.testing.assert_allclose(response.json(), expected[:1], atol=1e-5)
    assert response.headers["x-compute-type"] == "cpu"
    assert response.headers["x-compute-tokens"] == str(encoded(server, "embedder", TEXT)["input_ids"].shape[1])
    assert server.client.get("/models/embedder/info").json()["model_type"] == {"embedding": {"pooling": "mean"}}
    assert client("/models/embedder").health_check()
    assert client("/models/embedder").get_endpoint_info()["max_input_length"] == 64


def test_labels_pairs_and_rankings(server, client):
    kind = transformers.AutoModelForSequenceClassification
    scores = torch.softmax(logits_of(server, "judge", kind, TEXT), -1)
    labels = ["contradiction", "neutral", "entailment"]
    expected = sorted(zip(scores.tolist(), labels, strict=True), reverse=True)
    found = client("/models/judge").text_classification(TEXT)
    assert [each.label for each in found] == [label for _, label in expected]
    assert [each.score for each in found] == pytest.approx([score for score, _ in expected], abs=1e-5)

    judged = client("/models/judge").zero_shot_classification(TEXT, ["a dog", "a cat"], hypothesis_template="it is {}")
    both = [logits_of(server, "judge", kind, TEXT, f"it is {label}")[2] for label in ("a dog", "a cat")]
    assert {each.label: each.score for each in judged} == pytest.approx(
        dict(zip(("a dog", "a cat"), torch.softmax(torch.stack(both), -1).tolist(), strict=True)), abs=1e-5
    )

    texts = ["a day", "the cat", "his dog"]
    raw = [float(logits_of(server, "ranker", kind, TEXT, text)[0]) for text in texts]
    ranked = server.client.post("/rerank", json={"query": TEXT, "texts": texts, "raw_scores": True}).json()
    assert [each["index"] for each in ranked] == list(np.argsort(-np.array(raw)))
    assert [each["score"] for each in ranked] == pytest.approx(sorted(raw, reverse=True), abs=1e-4)
    info = server.client.get("/models/judge/info").json()["model_type"]["classifier"]
    assert info["id2label"] == {str(at): label for at, label in enumerate(labels)}
    tokens = server.client.post("/v1/infer/judge", json={"task": "tokenization", "inputs": TEXT}).json()["result"]["results"]
    assert [each["id"] for each in tokens[0]] == encoded(server, "judge", TEXT)["input_ids"][0].tolist()


def test_what_points_into_texts(server, client):
    tagger = transformers.pipeline("token-classification", str(server.made["tagger"]))
    expected = tagger(TEXT, aggregation_strategy="simple")
    found = client("/models/tagger").token_classification(TEXT, aggregation_strategy="simple")
    assert [(e.entity_group, e.word, e.start, e.end) for e in found] == [
        (e["entity_group"], e["word"], e["start"], e["end"]) for e in expected
    ]
    filler = transformers.pipeline("fill-mask", str(server.made["filler"]))
    filled = client("/models/filler").fill_mask("the [MASK] was good", top_k=3)
    expected = filler("the [MASK] was good", top_k=3)
    assert [(e.token, e.sequence) for e in filled] == [(e["token"], e["sequence"]) for e in expected]
    assert [e.score for e in filled] == pytest.approx([e["score"] for e in expected], abs=1e-4)
    answer = client("/models/reader").question_answering("is it good", TEXT)
    assert TEXT[answer.start : answer.end] == answer.answer
    several = client("/models/reader").question_answering("is it good", TEXT, top_k=2)
    assert several[0].answer == answer.answer


def test_texts_from_texts(server, client):
    model = loaded(server, "t5", transformers.AutoModelForSeq2SeqLM)
    tokenizer = transformers.AutoTokenizer.from_pretrained(server.made["t5"])
    inputs = encoded(server, "t5", TEXT)
    with torch.inference_mode():
        made = model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])[0]
    expected = tokenizer.decode(made, skip_special_tokens=True)
    assert client("/models/t5/pipeline/summarization").summarization(TEXT).summary_text == expected
    assert client("/models/t5/pipeline/translation").translation(TEXT).translation_text == expected
    assert client("/models/t5").text_generation(TEXT) == expected


# --------------------------------------------------------------------------------------------------------------- images


def test_images(server, client):
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((61, 47)).save(file, "PNG")
    picture = file.getvalue()
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    pixels = ViTImageProcessorPil.from_pretrained(server.made["org/vit"])(Image.open(file), return_tensors="pt")
    with torch.inference_mode():
        scores = torch.softmax(loaded(server, "org/vit", transformers.ViTForImageClassification)(**pixels).logits[0], -1)
    found = client("/models/org/vit").image_classification(picture)
    assert {each.label: each.score for each in found} == pytest.approx(
        {f"LABEL_{at}": score for at, score in enumerate(scores.tolist())}, abs=1e-4
    )
    assert client("/models/org%2Fvit").image_classification(picture, top_k=1)[0].label == found[0].label
    body = {"model": "org/vit", "inputs": base64.b64encode(picture).decode()}
    assert json.loads(server.client.post("/v1/classify", json=body).text)[0]["label"] == found[0].label


# ------------------------------------------------------------------------------------------------------------- real models


@pytest.fixture
def hub(real: Server) -> Iterator[InferenceClient]:
    set_client_factory(httpx.Client)
    with InferenceClient(provider="hf-inference") as made:
        yield made
    set_client_factory(default_client_factory)


@pytest.mark.real
def test_a_real_model_continues_texts_and_conversations(real, hub):
    model = f"{real.url}/models/smollm2"
    assert "Paris" in hub.text_generation("The capital of France is", model=model, max_new_tokens=8)
    found = hub.text_generation("The capital of France is", model=model, max_new_tokens=8, details=True)
    pieces = list(hub.text_generation("The capital of France is", model=model, max_new_tokens=8, stream=True))
    assert "".join(pieces) == found.generated_text
    assert [token.text for token in found.details.tokens if not token.special] == [piece for piece in pieces if piece]
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    assert "Paris" in hub.chat_completion(messages, model=model, max_tokens=16, temperature=0).choices[0].message.content


@pytest.mark.real
def test_a_real_model_tells_like_from_unlike(real, hub):
    like, unlike = hub.sentence_similarity(
        "A man is eating food.",
        other_sentences=["Someone is having a meal.", "The weather is lovely today."],
        model=f"{real.url}/models/minilm",
    )
    assert like > 0.6 > 0.3 > unlike
