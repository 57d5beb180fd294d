"""`modelport bench` before it measures: what it was asked for, and whether there is such a thing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def answering() -> Iterator[Callable[[dict[str, object]], str]]:
    """Starts a server that answers paths with JSON; returns its address."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answers: dict[str, object]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(answers[self.path]).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_bench_of_a_task_that_is_not_there_names_those_that_are(modelport, answering) -> None:
    info = {"id": "m", "state": "declared", "tasks": []}
    url = answering({"/v1/models/m/info": info, "/v1/catalog": {"models": [info], "tasks": {"shout": {}, "sing": {}}}})

    assert "no task 'sout'. Tasks: shout, sing." in modelport("bench", "m", "--url", url, "--task", "sout", status=2).stderr
    assert "Name it: --task shout|sing." in modelport("bench", "m", "--url", url, status=2).stderr


def test_bench_of_something_that_is_no_address_says_so(modelport) -> None:
    assert "'foo' is not the address of a server" in modelport("bench", "m", "--url", "foo", status=2).stderr
