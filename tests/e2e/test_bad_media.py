"""Damaged, huge and tiny media, through a real server, for every task on images: clear errors, bounded memory, a live worker."""

from __future__ import annotations

import base64
import importlib.util
import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from .conftest import Server

CHECKPOINTS = Path(__file__).parents[2] / "plugins/skills/vision/tests/conftest.py"
KINDS = {
    "image-classification": "vit",
    "object-detection": "yolos",
    "image-segmentation": "segformer",
    "depth-estimation": "dpt",
    "image-feature-extraction": "dinov2",
    "keypoint-detection": "superpoint",
    "video-classification": "videomae",
    "mask-generation": "sam",
}
ROOM_BYTES = 220_000_000
"""What a worker may need for the largest image that it takes, and no more for one that it refuses."""


def maker() -> Callable[[Path, str], Path]:
    """What writes the tiny checkpoints of the skill's own tests."""
    spec = importlib.util.spec_from_file_location("tiny_vision", CHECKPOINTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.write


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(file, "PNG")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of `side`² white pixels in some kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


GOOD = png(61, 47)
BAD = {
    "truncated": (GOOD[: len(GOOD) // 2], "cannot be decoded"),
    "30,000 × 30,000": (bomb(30_000), "million are taken"),
    "not an image": (b"GIF87 or so, but not really", "not an image that can be read"),
    "empty": (b"", "is empty"),
}


class Pictures(BaseHTTPRequestHandler):
    """A site with one picture."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(GOOD)))
        self.end_headers()
        self.wfile.write(GOOD)

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of a site on this machine."""
    served = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served.server_address[1]
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, site: int) -> Iterator[Server]:
    folder, write = tmp_path_factory.mktemp("media"), maker()
    models = "".join(
        f'[models.{task}]\nsource = "{write(folder / kind, kind)}"\nbackend = "cpu"\nthreads = 1\n'
        for task, kind in KINDS.items()
    )
    media = f'[media]\nallowed_hosts = ["127.0.0.1:{site}"]\nallowed_networks = ["127.0.0.1"]\n'
    running = Server(folder, f'skills = ["vision"]\n{media}{models}')
    yield running
    running.stop()


def body(task: str, data: bytes, **fields: Any) -> dict[str, Any]:
    media = {"data": base64.b64encode(data).decode()}
    prompts = {"points": [[[0, 0]]]} if task == "mask-generation" else {}
    return {"inputs": [media] * 4 if task == "video-classification" else media, **prompts, **fields}


def ask(server: Server, task: str, data: bytes) -> httpx.Response:
    return server.client.post(f"/v1/infer/{task}", json=body(task, data))


def most_bytes(worker: psutil.Process) -> int:
    """The most memory that a worker has held."""
    lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("task", KINDS)
def test_bad_images_are_refused_and_harm_nobody(server: Server, task: str) -> None:
    good = ask(server, task, GOOD)
    assert good.status_code == 200, good.text
    worker = server.worker_of(task)
    before = most_bytes(worker)

    for kind, (data, message) in BAD.items():
        answer = ask(server, task, data)
        assert answer.status_code == 400, (kind, answer.text)
        assert message in answer.text, kind
        assert "inputs" in answer.text, kind
    tiny = ask(server, task, png(1, 1))
    assert tiny.status_code in (200, 400), tiny.text

    assert most_bytes(worker) - before < ROOM_BYTES
    again = ask(server, task, GOOD)
    assert again.json()["result"] == good.json()["result"]
    assert server.worker_of(task).pid == worker.pid, "the worker that was there before"
    server.client.post(f"/v1/models/{task}/unload").raise_for_status()


def test_a_video_that_is_none_is_refused(server: Server) -> None:
    for data in (b"", b"#EXTM3U\nfile:///etc/passwd\n", b"\0\0\0 ftypisom" + bytes(500), GOOD):
        media = {"data": base64.b64encode(data).decode()}
        answer = server.client.post("/v1/infer/video-classification", json={"inputs": media})
        assert answer.status_code == 400, answer.text


def test_a_deadline_and_a_client_that_leaves_end_a_long_search(server: Server) -> None:
    long = body("mask-generation", png(600, 600), points=None, pred_iou_thresh=0, stability_score_thresh=0.1)
    ask(server, "mask-generation", GOOD).raise_for_status()
    worker = server.worker_of("mask-generation")

    late = server.client.post("/v1/infer/mask-generation", json={"request": long, "options": {"deadline_s": 0.5}})
    assert late.status_code == 504, late.text
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/infer/mask-generation", json=long, timeout=httpx.Timeout(30, read=0.5))

    server.until(lambda: server.metric("modelport_requests_in_flight", model="mask-generation") == 0)
    assert ask(server, "mask-generation", GOOD).status_code == 200
    assert server.worker_of("mask-generation").pid == worker.pid


def test_a_picture_is_fetched_from_an_allowed_host_and_no_other(server: Server, site: int) -> None:
    def classify(url: str) -> httpx.Response:
        return server.client.post("/v1/infer/image-classification", json={"inputs": {"url": url}})

    fetched = classify(f"http://127.0.0.1:{site}/cat.png")
    assert fetched.status_code == 200, fetched.text
    assert fetched.json()["result"] == ask(server, "image-classification", GOOD).json()["result"]
    for url in (f"http://localhost:{site}/cat.png", "http://127.0.0.1:1/cat.png", "file:///etc/passwd"):
        refused = classify(url)
        assert refused.status_code == 400, refused.text
        assert "fetches none" in refused.text
