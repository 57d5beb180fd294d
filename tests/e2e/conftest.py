"""A real server in a process of its own, started with the command that users type."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

DEMO = Path(os.environ.get("MODELPORT_DEMO_DIR", Path.home() / ".cache/modelport/demo"))
CHAT, EMBED = DEMO / "smollm2-135m-instruct", DEMO / "all-minilm-l6-v2"


TOOL_TEMPLATE = """\
{% if tools %}<|im_start|>system
Functions: {{ tools | tojson }}
Call one with <tool_call>{"name": ..., "arguments": ...}</tool_call><|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class Server:
    """`modelport serve` with a configuration; `url` once it listens."""

    def __init__(self, folder: Path, config: str, *args: str, env: dict[str, str] | None = None) -> None:
        self.config = folder / "modelport.toml"
        self.config.write_text(config)
        state = {"MODELPORT_STATE_DIR": str(folder / "state"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "modelport", "serve", "--config", str(self.config), "--port", "0", *args]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=os.environ | state | (env or {})
        )
        self.log: list[str] = []
        lines: queue.Queue[str | None] = queue.Queue()
        readers = ((self.process.stdout, lines.put), (self.process.stderr, self.log.append))
        self._readers = [threading.Thread(target=self._read, args=reader, daemon=True) for reader in readers]
        for reader in self._readers:
            reader.start()
        self.url = ""
        while not self.url:
            line = lines.get(timeout=60)
            if line is None:
                self._end(10)
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n" + "".join(self.log))
            match = re.search(r"modelport serving on (https?://\S+)", line)
            self.url = match[1] if match else ""
        self.client = httpx.Client(base_url=self.url, timeout=120)

    @staticmethod
    def _read(pipe, put: Callable[[str | None], object]) -> None:
        with pipe:
            for line in pipe:
                put(line)
        if put.__self__.__class__ is queue.Queue:  # the reader of stdout waits for its end
            put(None)

    @property
    def workers(self) -> list[psutil.Process]:
        """The worker processes, by age."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [p for p in children if any("modelport.worker" in part for part in p.cmdline())]

    def worker_of(self, model: str) -> psutil.Process:
        """The worker process that serves `model`."""
        (pid,) = self.client.get(f"/v1/models/{model}/placement").json()["processes"]
        return psutil.Process(pid)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of a metric that have these labels."""
        total = 0.0
        for line in self.client.get("/metrics").text.splitlines():
            match = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
            if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
                total += float(match[2])
        return total

    def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Waits for a condition that this process cannot be told of."""
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, "condition not reached; the server's log:\n" + "".join(self.log[-30:])
            time.sleep(0.02)

    def stop(self, sig: int = signal.SIGTERM, timeout_s: float = 60) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self._end(timeout_s)

    def _end(self, timeout_s: float) -> int:
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for reader in self._readers:
            reader.join()
        return status


@pytest.fixture(scope="session")
def demo() -> Path:
    """The folder of the demo models; skips where they were not fetched."""
    if not (CHAT / "config.json").exists() or not (EMBED / "config.json").exists():
        pytest.skip("the demo models are not there; `modelport demo` fetches them")
    return DEMO


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers for one test and stops them after it."""
    running: list[Server] = []

    def start(config: str = "", *args: str, env: dict[str, str] | None = None) -> Server:
        folder = tmp_path / f"server{len(running)}"
        folder.mkdir()
        running.append(Server(folder, config, *args, env=env))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def _with_tools(folder: Path) -> Path:
    """The chat model with a template that knows tools, which its own does not."""
    folder.mkdir()
    for path in CHAT.iterdir():
        if path.name != "chat_template.jinja":
            (folder / path.name).symlink_to(path)
    (folder / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def real(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with both demo models in float32, on the cpu backend and on OpenVINO, for all tests that leave it as it was."""
    tools = _with_tools(tmp_path_factory.mktemp("tools") / "smollm2")
    config = f"""
    [backends.openvino]
    cache = "{tmp_path_factory.mktemp("converted")}"
    [backends.cpu]
    [models.smollm2]
    source = "{CHAT}"
    dtype = "float32"
    backend = "cpu"
    preload = true
    [models.minilm]
    source = "{EMBED}"
    dtype = "float32"
    backend = "cpu"
    preload = true
    aliases = ["text-embedding-3-small"]
    [models.smollm2-tools]
    source = "{tools}"
    dtype = "bfloat16"
    backend = "cpu"
    [models.smollm2-openvino]
    source = "{CHAT}"
    dtype = "float32"
    backend = "openvino"
    [models.minilm-openvino]
    source = "{EMBED}"
    dtype = "float32"
    backend = "openvino"
    """
    server = Server(tmp_path_factory.mktemp("real"), config)
    server.until(lambda: server.client.get("/health/ready").status_code == 200, 180)
    yield server
    server.stop()
