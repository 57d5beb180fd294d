"""The ceiling: the same models called in a plain transformers loop, in a process of its own.

Reads one JSON command a line from stdin, `{"work": "embed", "batch": 8, "repeat": 4}`, and answers with the seconds it took.
Between commands it waits, so server and loop can take turns on one machine.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def embedder(folder: Path, texts: list[str]) -> Callable[[int], None]:
    """Tokenise, forward, mean-pool, normalise, one batch a call."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def embed(batch: int) -> None:
        with torch.inference_mode():
            inputs = tokenizer(texts[:batch], padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            torch.nn.functional.normalize(pooled, dim=-1).tolist()

    return embed


def generator(folder: Path, prompts: list[str], tokens: int) -> Callable[[int], None]:
    """One padded batch of greedy `generate` a call."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def generate(batch: int) -> None:
        with torch.inference_mode():
            inputs = tokenizer(prompts[:batch], padding=True, return_tensors="pt")
            out = model.generate(
                **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
            tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :])

    return generate


def main() -> None:
    """Serves commands until stdin ends."""
    import torch

    setup = json.loads(sys.stdin.readline())
    torch.set_num_threads(setup["threads"])
    works = {
        "embed": embedder(Path(setup["embed"]), setup["texts"]),
        "generate": generator(Path(setup["generate"]), setup["prompts"], setup["tokens"]),
    }
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        began = time.perf_counter()
        for _ in range(command["repeat"]):
            works[command["work"]](command["batch"])
        print(json.dumps(time.perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
