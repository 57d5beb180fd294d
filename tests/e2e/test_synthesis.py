"""Speech from a real server, asked for with curl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from modelport.testing.checkpoints import tiny_vits

from .conftest import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("speech")
    running = Server(folder, f'[models.reader]\nsource = "{tiny_vits(folder / "vits")}"\nbackend = "cpu"\n')
    yield running
    running.stop()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_a_file_that_others_read(server: Server, tmp_path: Path) -> None:
    body = '{"model": "reader", "input": "hello there", "voice": "default", "response_format": "wav", "seed": 1}'
    command = ["curl", "-sS", "--fail", f"{server.url}/v1/audio/speech", "-H", "content-type: application/json", "-d", body]
    for name in ("one.wav", "two.wav"):
        subprocess.run([*command, "-o", str(tmp_path / name)], check=True, timeout=120)
    wave, rate = soundfile.read(tmp_path / "one.wav")
    assert rate == 16_000
    assert wave.ndim == 1
    assert np.abs(wave).max() > 0.01
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()


def test_every_format_has_its_type_and_others_are_refused(server: Server) -> None:
    types = {"mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "pcm": "audio/pcm"}
    for name, mime in types.items():
        answer = server.client.post("/v1/audio/speech", json={"model": "reader", "input": "hi", "response_format": name})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == mime
        assert answer.content
    refused = server.client.post("/v1/audio/speech", json={"model": "reader", "input": "hi", "voice": "alloy"})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "voice"


def test_the_native_surface_carries_it_as_base64(server: Server) -> None:
    answer = server.client.post("/v1/infer/reader", json={"inputs": "hi", "generate_parameters": {"seed": 3}})
    assert answer.status_code == 200, answer.text
    result = answer.json()["result"]
    assert result["audio"]["mime"] == "audio/wav"
    assert result["sampling_rate"] == 16_000
