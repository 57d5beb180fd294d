"""The raw loops that the server is compared with: the same models, called plainly, in a process of their own on one core.

Reads one JSON command a line from stdin, for instance `{"work": "embed", "engine": "openvino", …}`, and answers with the
processor milliseconds it took. Between commands it waits, so server and loops take turns on one core.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

Batches = list[list[str]]


@cache
def embed_openvino(checkpoint: str, converted: str, dtype: str) -> Callable[[Batches], None]:
    """Tokenise and call the compiled model, which pools and normalises: one batch after the other."""
    import numpy as np
    import openvino as ov
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(checkpoint) / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    hints = {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    model = ov.Core().compile_model(Path(converted) / "main" / "openvino_model.xml", "CPU", hints)
    names = [port.get_any_name() for port in model.inputs]

    def run(batches: Batches) -> None:
        for batch in batches:
            found = tokenizer.encode_batch(batch)
            arrays = {
                "input_ids": np.array([each.ids for each in found]),
                "attention_mask": np.array([each.attention_mask for each in found]),
                "token_type_ids": np.array([each.type_ids for each in found]),
            }
            next(iter(model({name: arrays[name] for name in names}).values())).tolist()

    return run


@cache
def embed_torch(checkpoint: str, dtype: str) -> Callable[[Batches], None]:
    """Tokenise, forward, mean-pool, normalise: one batch after the other."""
    import torch
    import transformers

    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.backend_tokenizer.no_padding()
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def run(batches: Batches) -> None:
        for batch in batches:
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            torch.nn.functional.normalize(pooled, dim=-1).tolist()

    return run


@cache
def chat_openvino(checkpoint: str, converted: str, dtype: str, rows: int) -> Callable[[list[str], int], None]:
    """openvino_genai's continuous batching over all prompts at once, without its prefix cache."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    plan = genai.SchedulerConfig()
    plan.cache_size, plan.num_kv_blocks, plan.max_num_seqs, plan.max_num_batched_tokens = 0, 8 * rows, rows, 2048
    hints = {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": 1, "KV_CACHE_PRECISION": dtype}
    pipeline = genai.ContinuousBatchingPipeline(str(Path(converted) / "main"), plan, "CPU", hints)

    def run(prompts: list[str], tokens: int) -> None:
        config = genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True)
        rendered = [_rendered(tokenizer, prompt) for prompt in prompts]
        for answer in pipeline.generate([ov.Tensor(np.array([ids])) for ids in rendered], [config] * len(prompts)):
            tokenizer.decode(answer.m_generation_ids[0])

    return run


@cache
def chat_torch(checkpoint: str, dtype: str) -> Callable[[list[str], int], None]:
    """One padded batch of greedy `generate`."""
    import torch
    import transformers

    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, dtype)).eval()

    @torch.inference_mode()
    def run(prompts: list[str], tokens: int) -> None:
        inputs = tokenizer.pad({"input_ids": [_rendered(tokenizer, prompt) for prompt in prompts]}, return_tensors="pt")
        out = model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :])

    return run


def _rendered(tokenizer: Any, prompt: str) -> list[int]:
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text)
    return ids


_LOOPS: dict[str, Callable[..., Callable[..., None]]] = {
    "embed openvino": embed_openvino,
    "embed torch": embed_torch,
    "chat openvino": chat_openvino,
    "chat torch": chat_torch,
}


def main() -> None:
    """Serves commands until stdin ends."""
    for line in sys.stdin:
        command = json.loads(line)
        run = _LOOPS[command["loop"]](**command["setup"])
        began = time.process_time()
        run(*command["work"])
        print(json.dumps((time.process_time() - began) * 1000), flush=True)


if __name__ == "__main__":
    main()
