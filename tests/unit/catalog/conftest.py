"""Small checkpoints on disk, and a Hub on loopback."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save

COMMIT = "a" * 40


def small_files(**config: Any) -> dict[str, bytes]:
    """A checkpoint of two arrays."""
    config = {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 64, **config}
    weights = save({"a": np.zeros((4, 3), np.float32), "ids": np.arange(5)})
    return {"config.json": json.dumps(config).encode(), "model.safetensors": weights, "tokenizer.json": b"{}"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small checkpoint, with other or fewer (None) files."""

    def write(files: Mapping[str, bytes | str | None] | None = None, **config: Any) -> Path:
        folder = tmp_path / "checkpoint"
        for name, content in {**small_files(**config), **(files or {})}.items():
            if content is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write


class FakeHub:
    """The few routes of the Hub that a download uses."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.sizes: dict[tuple[str, str], int] = {}
        self.failing = 0
        self.hold: threading.Event | None = None
        self.requests: list[str] = []
        self.tokens: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        if self.hold:
            self.hold.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path).strip("/")
        self.requests.append(f"{request.command} {path}")
        self.tokens.add(request.headers.get("Authorization") or "")
        if self.failing:
            return self._send(request, self.failing)
        if path.startswith("api/models/"):
            repo, what, revision = re.fullmatch(r"api/models/(.+?)(?:/(revision|tree)/(.+))?", path).groups("")  # type: ignore[union-attr]
            if repo not in self.repos:
                return self._send(request, 401, {"X-Error-Code": "RepoNotFound"})
            if revision not in ("", "main", COMMIT):
                return self._send(request, 404, {"X-Error-Code": "RevisionNotFound"})
            sizes = {name: self.sizes.get((repo, name), len(content)) for name, content in self.repos[repo].items()}
            listing: Any
            if what == "tree":  # which huggingface_hub 2 asks for
                listing = [{"type": "file", "path": name, "size": size, "oid": "0"} for name, size in sizes.items()]
            else:
                siblings = [{"rfilename": name, "size": size, "blobId": "0"} for name, size in sizes.items()]
                listing = {"_id": "1", "id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings, "tags": []}
            return self._send(request, 200, {"Content-Type": "application/json"}, json.dumps(listing).encode())
        repo, _, rest = path.partition("/resolve/")
        name = rest.partition("/")[2]
        if repo in self.gated:
            return self._send(request, 403, {"X-Error-Code": "GatedRepo"})
        if name not in self.repos.get(repo, {}):
            return self._send(request, 404, {"X-Error-Code": "EntryNotFound"})
        if self.hold and name.endswith(".safetensors") and request.command == "GET":
            self.hold.wait()
        content = self.repos[repo][name]
        return self._send(request, 200, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> None:
        try:
            request.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                request.send_header(name, value)
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)
        except ConnectionError:
            pass


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub()
    yield made
    made.close()
