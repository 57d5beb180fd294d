"""The official OpenAI client, real models, and transformers as the judge."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from .conftest import CHAT, EMBED, Server

pytestmark = pytest.mark.real

EMBEDDERS = ["minilm", "minilm-openvino"]
GENERATORS = ["smollm2", "smollm2-openvino"]
TEXTS = ["A man is eating food.", "Someone is having a meal.", "The stock market fell sharply today.", "ünïcödé 🚀 " * 20]
PROMPTS = [
    "The three primary colours are",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "The chemical symbol of water is",
    "1, 2, 3, 4,",
    "My favourite season is autumn because",
    "To make a good cup of tea, first",
    "The quick brown fox",
    "In 1969, the first human being",
]


@pytest.fixture
def client(real: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def torch_embeddings(demo: Path) -> np.ndarray:
    """Mean pooling and normalisation, written with transformers alone."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(EMBED)
    model = transformers.AutoModel.from_pretrained(EMBED, dtype=torch.float32).eval()
    rows = []
    for text in TEXTS:
        tokenizer.backend_tokenizer.no_padding()
        batch = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=-1).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def torch_generate(demo: Path):
    """Greedy continuations by `transformers.generate`, and the margin of each step's choice."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(CHAT)
    model = transformers.AutoModelForCausalLM.from_pretrained(CHAT, dtype=torch.float32).eval()

    def generate(prompt: str, tokens: int) -> tuple[list[int], list[float], str]:
        batch = tokenizer(prompt, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(
                **batch, max_new_tokens=tokens, do_sample=False, return_dict_in_generate=True, output_logits=True
            )
        ids = out.sequences[0, batch["input_ids"].shape[1] :].tolist()
        margins = [float(np.subtract(*logits[0].topk(2).values.tolist())) for logits in out.logits]
        return ids, margins, tokenizer.decode(ids, skip_special_tokens=True)

    return generate


def test_chat_streams_the_capital_of_france(client):
    chunks = client.chat.completions.create(
        model="smollm2",
        messages=[{"role": "user", "content": "What is the capital of France? Answer briefly."}],
        temperature=0,
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    seen = list(chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in seen if chunk.choices)
    assert "Paris" in text
    assert len([c for c in seen if c.choices and c.choices[0].delta.content]) > 2
    assert seen[-1].usage.completion_tokens > 2
    assert {chunk.id for chunk in seen} == {seen[0].id}


@pytest.mark.parametrize("model", EMBEDDERS)
def test_embeddings_equal_transformers_in_base64_and_in_floats(model, client, torch_embeddings):
    default = client.embeddings.create(model=model, input=TEXTS)
    floats = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
    ours = np.array([row.embedding for row in default.data])
    np.testing.assert_allclose(ours, np.array([row.embedding for row in floats.data]), atol=1e-6)
    cosines = (ours * torch_embeddings).sum(-1)
    assert cosines.min() >= 0.9999
    assert default.usage.prompt_tokens > 20


@pytest.mark.parametrize("model", GENERATORS)
def test_greedy_completion_equals_transformers_alone_and_in_a_crowd(model, real, torch_generate):
    async def scenario() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0) as client:

            async def complete(prompt: str) -> str:
                answer = await client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=32)
                return answer.choices[0].text

            alone = [await complete(prompt) for prompt in PROMPTS]
            return alone, await asyncio.gather(*(complete(prompt) for prompt in PROMPTS))

    alone, crowd = asyncio.run(scenario())
    for prompt, one, many in zip(PROMPTS, alone, crowd, strict=True):
        _, margins, expected = torch_generate(prompt, 32)
        if min(margins) > 1e-4:  # nearer than that, rounding decides
            assert one == expected
            assert many == expected


@pytest.mark.parametrize("model", EMBEDDERS)
def test_concurrent_embeddings_are_batched_and_every_caller_gets_its_own(model, real):
    texts = [f"Sentence number {i} speaks of {word}." for i in range(16) for word in ("rain", "iron", "music", "law")]
    before = real.metric("modelport_batches_total", model=model), real.metric("modelport_batch_items_total", model=model)

    async def scenario() -> tuple[np.ndarray, np.ndarray]:
        async with openai.AsyncOpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0) as client:
            worker = real.worker_of(model)
            worker.suspend()  # until all have arrived: how fast this client sends does not matter then
            try:
                calls = [asyncio.create_task(client.embeddings.create(model=model, input=text)) for text in [texts, *texts]]
                await asyncio.to_thread(real.until, lambda: real.metric("modelport_requests_in_flight", model=model) == 65)
            finally:
                worker.resume()
            together, *singles = await asyncio.gather(*calls)
        return np.array([row.embedding for row in together.data]), np.array([answer.data[0].embedding for answer in singles])

    real.client.post("/v1/embeddings", json={"model": model, "input": "warm"}).raise_for_status()
    together, singles = asyncio.run(scenario())
    cosines = singles @ together.T
    assert cosines.argmax(1).tolist() == list(range(64))
    assert np.diag(cosines).min() >= 0.9999
    real.until(lambda: real.metric("modelport_batch_items_total", model=model) >= before[1] + 128)
    batches = real.metric("modelport_batches_total", model=model) - before[0]
    assert (real.metric("modelport_batch_items_total", model=model) - before[1]) / batches > 8


def test_server_process_never_maps_libtorch_nor_imports_transformers(real, client):
    client.embeddings.create(model="minilm", input="warm")
    maps = Path(f"/proc/{real.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "tokenizers" not in maps
    assert "libtorch" in Path(f"/proc/{real.worker_of('minilm').pid}/maps").read_text()


@pytest.mark.parametrize("model", ["minilm-openvino", "smollm2-openvino"])
def test_workers_of_openvino_never_map_libtorch(model, real):
    path, asked = ("embeddings", {"input": "warm"}) if model.startswith("minilm") else ("completions", {"prompt": "warm"})
    assert real.client.post(f"/v1/{path}", json={"model": model, **asked}).status_code == 200
    assert "libtorch" not in Path(f"/proc/{real.worker_of(model).pid}/maps").read_text()


@pytest.mark.parametrize("args", [["plugins", "list", "--json"], ["--help"], ["serve", "--help"]])
def test_commands_answer_without_importing_torch_or_transformers(args):
    code = (
        "import sys; from modelport.core.cli.main import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "print([m for m in ('torch', 'transformers', 'tokenizers', 'litestar') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_sampling_with_a_seed_repeats_and_without_one_varies(client):
    def texts(**options) -> list[str]:
        answer = client.completions.create(
            model="smollm2", prompt="Names of imaginary planets:", max_tokens=12, temperature=1.0, n=2, **options
        )
        return [choice.text for choice in answer.choices]

    assert texts(seed=7) == texts(seed=7)
    assert len(set(texts(seed=7))) == 2
    assert texts() != texts()


def test_stop_strings_end_the_text_before_them(client):
    answer = client.completions.create(model="smollm2", prompt="1, 2, 3, 4,", max_tokens=40, temperature=0, stop=[" 9"])
    assert answer.choices[0].text == " 5, 6, 7, 8,"
    assert answer.choices[0].finish_reason == "stop"


def test_logit_bias_forbids_a_token_and_logprobs_tell_the_probabilities(client):
    question = {"model": "smollm2", "messages": [{"role": "user", "content": "Say yes."}], "temperature": 0, "max_tokens": 4}
    free = client.chat.completions.create(**question, logprobs=True, top_logprobs=3)
    first = free.choices[0].logprobs.content[0]
    assert first.logprob <= 0
    assert first.token == first.top_logprobs[0].token
    assert len(first.top_logprobs) == 3
    token = client.chat.completions.create(**question, logit_bias={"19556": -100}).choices[0].message.content
    assert token is not None
