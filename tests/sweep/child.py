"""One long-lived process that builds, serves and compares pairs, and prints a JSON line for each.

    python child.py FOLDER BACKEND PAIR…

The models are served by modelport's own engine: catalog, claims, placement, host and worker are those of a server; the worker
runs on a thread of this process, so that the libraries are imported once for all pairs. The reference is computed by the
adaptors, which know transformers and nothing of modelport.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build import CannotBuild, build, save, settings_of, settling
from compare import difference, proves_nothing
from pairs import Pair, all_pairs

SEEDS = 6
OPTIONS = {"converter_stays_s": 60}
"""Of the backend: one that converts imports its libraries once for all pairs."""
KNOWN = {"No installed skill": "no skill", "can run nowhere": "refused", "cannot convert this model": "refused"}
"""What modelport says before a model is served, and the status that this is."""


class Fails(Exception):
    """Why a pair that was built is not verified."""


def main(folder: Path, backend: str, names: Sequence[str]) -> None:
    """Tries the pairs in turn."""
    be_quiet()
    known = {pair.name: pair for pair in all_pairs()}
    pairs = [known[name] for name in names]
    answers = os.fdopen(os.dup(1), "w")  # what libraries print must not come between the results
    os.dup2(2, 1)
    with _engine(folder, backend, pairs) as engine:
        for pair in pairs:
            answers.write(json.dumps({"begins": pair.name}) + "\n")
            answers.flush()
            began = time.monotonic()
            status, reason = _try(engine, pair, folder)
            reason = reason.replace(str(folder), "FOLDER")
            told = {"pair": pair.name, "status": status, "reason": reason, "seconds": round(time.monotonic() - began, 2)}
            answers.write(json.dumps(told) + "\n")
            answers.flush()


def _try(engine: Any, pair: Pair, folder: Path) -> tuple[str, str]:
    place = folder / model_name(pair)
    try:
        if not (Path(__file__).parent / f"adaptors/{pair.adaptor}.py").exists():
            return "fails", f"the sweep does not ask for {pair.task} yet"
        _served(engine, pair, *make(pair, place))
        return "verified", ""
    except CannotBuild as error:
        return "cannot be built", str(error)
    except Fails as error:
        return "fails", str(error)
    except Exception as error:
        if os.environ.get("SWEEP_DEBUG"):
            traceback.print_exc()
        status = next((status for words, status in KNOWN.items() if words in str(error)), "fails")
        return status, f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def make(pair: Pair, place: Path) -> tuple[Any, list[dict[str, Any]], list[Any]]:
    """Writes the checkpoint to `place`; its adaptor, the requests, and what transformers answers to each alone.

    Raises:
        CannotBuild: if there is no such model, or its answers would prove nothing.
    """
    import torch

    adaptor = importlib.import_module(f"adaptors.{pair.adaptor}")
    why = None
    for seed in range(SEEDS):  # some weights drown the input in what is always there
        model = build(pair, settings_of(adaptor, pair), seed)
        try:
            tools = adaptor.equip(pair, model, place)
            requests = adaptor.requests(pair, model, tools)
            with torch.inference_mode():
                if seed:
                    with settling(model):
                        expected = [adaptor.expected(model, tools, request) for request in requests]
                expected = [adaptor.expected(model, tools, request) for request in requests]
        except CannotBuild:
            raise
        except Exception as error:
            if os.environ.get("SWEEP_DEBUG"):
                traceback.print_exc()
            raise CannotBuild(f"transformers alone: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
        if (why := proves_nothing(expected)) is None:
            save(model, place)
            return adaptor, requests, expected
    raise CannotBuild(why)


def _served(engine: Any, pair: Pair, adaptor: Any, requests: list[dict[str, Any]], expected: list[Any]) -> None:
    """Asks all three at once: as one request where the task takes several inputs, which then share a batch.

    Raises:
        Fails: if an answer differs.
    """
    name = model_name(pair)
    try:
        engine.load(name)
        if hasattr(adaptor, "merged"):
            results = [engine.run(pair.task, name, adaptor.merged(requests)).result] * len(requests)
        else:
            with ThreadPoolExecutor(len(requests)) as pool:
                results = list(pool.map(lambda request: engine.run(pair.task, name, request).result, requests))
        for index, (request, result) in enumerate(zip(requests, results, strict=True)):
            if found := difference(expected[index], adaptor.answered(result, request, index)):
                raise Fails(f"the answer to input {index} differs: {found}")
    finally:
        engine.unload(name)


def model_name(pair: Pair) -> str:
    """What the model of a pair is called while it is served."""
    return pair.name.replace("/", "--")


def _engine(folder: Path, backend: str, pairs: Sequence[Pair]) -> Any:
    from modelport import Engine
    from modelport.core.config.settings import LearningSettings, ModelSettings, Settings

    models = {
        model_name(pair): ModelSettings(
            source=str(folder / model_name(pair)), backend=backend, dtype="float32", max_length=1024, threads=1, strict=True,
            task=pair.task, backend_options=OPTIONS,
        )
        for pair in pairs
    }  # fmt: skip
    settings = Settings(
        models=models, backends=[backend], offline=True, state_dir=str(folder / "state"), cache_dir=str(folder / "cache"),
        learning=LearningSettings(explore=0.0),
    )  # fmt: skip
    return Engine(settings=settings, executor="thread")


def be_quiet() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.simplefilter("ignore")
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.disable(logging.ERROR)
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
