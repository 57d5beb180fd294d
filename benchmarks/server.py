"""`modelport serve` on one core, for as long as a measurement takes."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from machine import SERVER_CORE, pinned
from tree import Tree

__all__ = ["DEMO", "Server"]

DEMO = Path(os.environ.get("MODELPORT_DEMO_DIR", Path.home() / ".cache/modelport/demo"))
"""Where `modelport demo` put the models."""


class Server:
    """A server with some models, on one core; converted models are kept between runs.

    Args:
        models: `models.NAME` tables by name.
        spare: How many spare workers it keeps.

    Attributes:
        address: (host, port).
        began: `time.perf_counter()` when the process was started.
        tree: What it uses.
    """

    def __init__(self, models: dict[str, dict[str, Any]], spare: int = 0) -> None:
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name) / "modelport.toml"
        tables = [f"models.{name} = {_toml(table)}\n" for name, table in models.items()]
        config.write_text(f"spare = {spare}\nlimits = {{ load_wait_s = 600 }}\n" + "".join(tables), encoding="utf-8")
        command = [sys.executable, "-m", "modelport", "serve", "--config", str(config), "--port", "0", "--log-level", "error"]
        environment = os.environ | {"MODELPORT_STATE_DIR": f"{self._folder.name}/state", "HF_HUB_OFFLINE": "1"}
        self.began = time.perf_counter()
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=pinned(SERVER_CORE)
        )
        assert self._process.stdout is not None
        match = None
        while match is None:
            line = self._process.stdout.readline()
            assert line, "the server ended before it served"
            match = re.search(r"serving on http://([\d.]+):(\d+)", line)
        self.address = match[1], int(match[2])
        self.tree = Tree(self._process.pid)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the answer, decoded if it is JSON."""
        connection = http.client.HTTPConnection(*self.address, timeout=600)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"} if data else {})
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        assert response.status == 200, (response.status, answer[:500])
        return json.loads(answer) if answer.startswith(b"{") else answer

    def place(self, model: str) -> dict[str, str]:
        """Loads a model, however long a conversion takes; the facts that its runner states."""
        self.ask("POST", f"/v1/models/{model}/load")
        facts: dict[str, str] = self.ask("GET", f"/v1/models/{model}/placement")["facts"]
        return facts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)
