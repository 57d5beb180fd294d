"""An engine for a loaded model, after a check that stepping it gives what the model gives by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import torch

from modelport.contract.errors import ConfigurationError
from modelport.contract.program import Generate
from modelport_torch.choice import Choice
from modelport_torch.engine.beside import BesideEngine
from modelport_torch.engine.cache import SlotCache
from modelport_torch.engine.check import check_stepping
from modelport_torch.engine.constraint import Grammars
from modelport_torch.engine.engine import TorchEngine
from modelport_torch.engine.model import SteppedModel
from modelport_torch.engine.prefixes import Prefixes
from modelport_torch.engine.rules import end_tokens
from modelport_torch.engine.scheduler import Scheduler
from modelport_torch.engine.static import StaticEngine
from modelport_torch.engine.trial import try_graphs
from modelport_torch.support import cache_bytes_per_token

__all__ = ["AnyEngine", "build_engine"]

AnyEngine: TypeAlias = BesideEngine | StaticEngine

_BLOCK = 64
_PLAIN = Generate()


def build_engine(
    model: Any,
    device: torch.device,
    *,
    max_rows: int,
    max_length: int | None,
    cache_bytes: int,
    prefill_tokens: int,
    prefix_tokens: int = 0,
    tokenizer: Path | None = None,
    static: str | None = None,
    entry: Generate = _PLAIN,
    compiled: Choice = "off",
) -> tuple[AnyEngine, str]:
    """An engine over `model` whose cache stays within `cache_bytes`, and how its steps run, for the placement record.

    Up to `prefix_tokens` of the cache, and never so many that a longest sequence would not fit, are kept for requests that
    begin alike; beams may take a quarter of it beside. Constraints need the model's `tokenizer`, a tokenizer.json. `static` says
    why it is not to be stepped; a model that gives other answers in steps is not stepped either. `entry` is what the program
    says of the loop. `compiled` says whether steps are to be graphs.

    Raises:
        ConfigurationError: if they are to be, and cannot.
        MemoryError: if not even one sequence of some length fits the cache.
    """
    try:
        per_token = 0 if static is not None else check_stepping(model, device)
    except ConfigurationError as error:
        static = error.message
    if static is not None:
        per_token = cache_bytes_per_token(model.config.to_dict(), str(model.dtype).removeprefix("torch."))
    tokens = cache_bytes // max(per_token, 1) // _BLOCK * _BLOCK
    if tokens < _BLOCK:
        raise MemoryError(
            f"the key/value cache may take {cache_bytes:,} bytes, and {_BLOCK} tokens of this model need {per_token * _BLOCK:,}."
        )
    kept = min(prefix_tokens, tokens // 4) if static is None else 0
    if max_length is not None:
        kept = max(min(kept, tokens - max_length - _BLOCK), 0)
    tokens = (tokens - kept) // _BLOCK * _BLOCK
    if static is not None:
        engine = StaticEngine(model, device, max_rows=max_rows, max_length=max_length, max_tokens=tokens, why=static, entry=entry)
        return engine, "as it is: only the stepped engine has graphs"
    if max_length is not None:
        tokens = min(tokens, -(-max_length // _BLOCK) * _BLOCK * max_rows)
    scheduler = Scheduler(max_rows, tokens, prefill_tokens)
    recorder, how = try_graphs(compiled, model, device)
    stepped = SteppedModel(model, device, SlotCache(max_rows, tokens), recorder)
    defaults = model.generation_config
    grammars = Grammars(tokenizer, stepped.vocabulary, end_tokens(defaults)) if tokenizer else None
    loop = TorchEngine(stepped, defaults, max_length, scheduler, grammars, Prefixes(kept))
    beams = StaticEngine(model, device, max_rows=max_rows, max_length=loop.max_length, max_tokens=max(tokens // 4, _BLOCK))
    return BesideEngine(loop, beams, model, device), how
