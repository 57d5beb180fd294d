"""What a converted language model says, held against transformers on the same weights: before anything is served from it."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from modelport_torch.support import text_config

if TYPE_CHECKING:
    import torch

__all__ = ["compare_generator"]

_LENGTHS = (3, 17, 40)
"""Tokens of the made-up prompts, which share batches; the longest fills more than one block of the cache, and one step."""
_TOKENS = 8
_BLOCKS = 16
_STEP_TOKENS = 32
_SPARE = 2
"""Some models count positions from two."""
_APART = 0.05
"""How far log-probabilities may be apart where both compute in float32, as the mean of a prompt: far more than rounding."""
_HALVES_APART = 0.25
"""The same where both compute in halves."""


class _Said(NamedTuple):
    """What followed a prompt, greedily, and the log-probability of each token."""

    prompt: np.ndarray
    tokens: list[int]
    scores: list[float]


def compare_generator(converted: Path, checkpoint: Path, dtype: str, *, head: str, trust_remote_code: bool = False) -> None:
    """Generates from made-up prompts as the engine will, paged and batched, and asks the original for the same tokens.

    The two are loaded one after the other, when what exported is gone: the weights are held once, in float32 where that fits in
    the memory that is free, else as the checkpoint has them (`dtype`).

    Raises:
        ValueError: if they do not agree.
        ConfigurationError: if the original cannot be loaded.
    """
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    weights = (converted / "openvino_model.bin").stat().st_size * (2 if dtype in ("float16", "bfloat16") else 1)
    is_exact = dtype == "float32" or weights < psutil.virtual_memory().available
    found = _generated(converted, _prompts(config), is_exact=is_exact)
    gc.collect()
    worst, at = _farthest(found, head, checkpoint, "float32" if is_exact else dtype, trust_remote_code)
    if not worst <= (_APART if is_exact else _HALVES_APART):
        raise ValueError(
            "the converted model generates otherwise than the original (log-probabilities of the tokens after a made-up prompt "
            f"of {at} are {worst:.2f} apart)"
        )


def _prompts(config: dict[str, Any]) -> list[np.ndarray]:
    """Made-up token ids without those that mean a beginning, an end or padding, as long as the model has positions for."""
    text = text_config(config)
    limits = [text.get(name) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    room = min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=1 << 20) - _TOKENS - _SPARE
    special = [text.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    known = np.setdiff1d(np.arange(int(text["vocab_size"])), [token for token in special if isinstance(token, int)])
    draw = np.random.default_rng(0)
    return [draw.choice(known, max(min(length, room), 1)) for length in _LENGTHS]


def _generated(folder: Path, prompts: list[np.ndarray], *, is_exact: bool) -> list[_Said]:
    """By openvino_genai's continuous batching, in float32, or in bfloat16 where the processor has it."""
    import openvino as ov
    import openvino_genai as genai

    plan = genai.SchedulerConfig()
    plan.cache_size = 0
    plan.num_kv_blocks = _BLOCKS
    plan.max_num_batched_tokens = _STEP_TOKENS
    plan.dynamic_split_fuse = True
    plan.enable_prefix_caching = False
    has_halves = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precision = "bf16" if has_halves and not is_exact else "f32"
    greedy = genai.GenerationConfig()
    greedy.max_new_tokens = _TOKENS
    greedy.ignore_eos = True
    greedy.do_sample = False
    greedy.logprobs = 1
    try:
        properties = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
        pipeline = genai.ContinuousBatchingPipeline(str(folder), plan, "CPU", properties)
        handles = [pipeline.add_request(at, ov.Tensor(prompt[None]), greedy) for at, prompt in enumerate(prompts)]
        while pipeline.has_non_finished_requests():
            pipeline.step()
    except RuntimeError as error:
        raise ValueError(f"OpenVINO cannot generate with the converted model ({str(error).strip().splitlines()[-1]})") from error
    found = []
    for prompt, handle in zip(prompts, handles, strict=True):
        said = _Said(prompt, [], [])
        while handle.can_read():
            (output,) = handle.read().values()
            said.tokens.extend(output.generated_ids)
            said.scores.extend(output.generated_log_probs)
        found.append(said)
    return found


def _farthest(found: list[_Said], head: str, checkpoint: Path, dtype: str, trust_remote_code: bool) -> tuple[float, int]:
    """How far the original is from what was said, in nats, and the length of the prompt where it is farthest.

    A token's distance is that between its two log-probabilities, or to the token that the original likes best if that is more:
    where the original has no favourite, either choice is right.
    """
    import torch

    from modelport_torch.load import load_model

    model = load_model(
        head, checkpoint, dtype, torch.device("cpu"), lambda what, fraction: None, trust_remote_code=trust_remote_code
    )
    worst, at = 0.0, 0
    for said in found:
        distances = []
        for token, score, logits in zip(said.tokens, said.scores, _logits(model, said), strict=False):  # the original may end
            own = logits.float().log_softmax(-1)
            distances.append(max(abs(float(own[token]) - score), float(own.max() - own[token])))
        mean = float(np.mean(distances)) if distances and len(said.tokens) == _TOKENS else float("inf")
        if not mean <= worst:
            worst, at = mean, len(said.prompt)
    return worst, at


def _logits(model: Any, said: _Said) -> tuple[torch.Tensor, ...]:
    """What the original's own loop computes on the way through the same tokens: logits (vocabulary) for each."""
    import torch

    ids = torch.from_numpy(said.prompt)[None]

    def follow(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, said.tokens[ids.shape[1] - len(said.prompt)]] = 0
        return forced

    with torch.inference_mode():
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=len(said.tokens),
            do_sample=False,
            num_beams=1,
            pad_token_id=0,
            logits_processor=[follow],
            output_logits=True,
            return_dict_in_generate=True,
        )
    return tuple(logits[0] for logits in made.logits)
