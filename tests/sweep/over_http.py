"""One model type of each task once more, through a server: its own process, workers of their own, HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from child import be_quiet, make, model_name
from compare import difference
from pairs import Pair


def check(pairs: Sequence[Pair], backend: str) -> dict[str, dict[str, str]]:
    """What each pair's task answered over HTTP: by task, the pair, and `verified` or what was wrong."""
    from modelport.client import Client

    be_quiet()
    with tempfile.TemporaryDirectory(prefix="sweep-") as place:
        folder = Path(place)
        made = {pair: make(pair, folder / model_name(pair)) for pair in pairs}
        process, url = _server(folder, pairs, backend)
        try:
            with Client(url, timeout_s=300) as client:
                return {pair.task: _checked(client, pair, *made[pair]) for pair in pairs}
        finally:
            process.terminate()
            process.wait()


def _checked(client: Any, pair: Pair, adaptor: Any, requests: list[dict[str, Any]], expected: list[Any]) -> dict[str, str]:
    name = model_name(pair)

    def ask(request: dict[str, Any]) -> Any:
        return client.infer(name, request, task=pair.task).result

    try:
        with ThreadPoolExecutor(len(requests)) as pool:
            results = list(pool.map(ask, requests))
        found = [
            difference(wanted, adaptor.answered(result, request, 0))
            for wanted, request, result in zip(expected, requests, results, strict=True)
        ]
        client.unload(name)
        wrong = next((sentence for sentence in found if sentence is not None), None)
        return {"pair": pair.name, "status": "fails" if wrong else "verified", "reason": wrong or ""}
    except Exception as error:
        return {"pair": pair.name, "status": "fails", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _server(folder: Path, pairs: Sequence[Pair], backend: str) -> tuple[subprocess.Popen[str], str]:
    lines = [f'state_dir = "{folder}/state"', f'cache_dir = "{folder}/cache"', "offline = true", "spare = 0", ""]
    for pair in pairs:
        lines += [f'[models."{model_name(pair)}"]', f'source = "{folder / model_name(pair)}"', f'backend = "{backend}"']
        lines += ['dtype = "float32"', "max_length = 1024", "threads = 1", f'task = "{pair.task}"', ""]
    file = folder / "modelport.toml"
    file.write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "modelport", "serve", "--config", str(file), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if match := re.search(r"modelport serving on (https?://\S+)", line):
            return process, match[1]
    raise RuntimeError("the server ended before it listened")
