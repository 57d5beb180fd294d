"""The examples, run as their reader runs them, against real servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelport.testing.checkpoints import tiny_cross_encoder

from .conftest import CHAT, EMBED, Server
from .test_template import Scratch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLUGINS = EXAMPLES / "plugins"
ECHO = PLUGINS / "modelport-api-echo"


def run(name: str, *arguments: str, url: str = "", cwd: Path | None = None, **env: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True, text=True, check=False, timeout=180, cwd=cwd, env=os.environ | {"MODELPORT_URL": url} | env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.real
def test_openai_chat_prints_the_answer_and_its_tokens(real: Server) -> None:
    printed = run("openai_chat.py", "smollm2", "What is the capital of France?", url=real.url)

    assert "Paris" in printed
    assert re.search(r"^\(\d+ tokens in, \d+ out\)$", printed, re.MULTILINE)


@pytest.mark.real
def test_structured_output_prints_a_person_whatever_the_model_says(real: Server) -> None:
    assert re.fullmatch(r".{0,40} is \d{1,3}\n", run("structured_output.py", "smollm2", url=real.url), re.DOTALL)


@pytest.mark.real
def test_embeddings_puts_the_nearest_sentence_first(real: Server) -> None:
    lines = run("embeddings.py", "minilm", url=real.url).splitlines()

    assert len(lines) == 3
    assert lines[0].endswith("Someone is having a meal.")
    assert [line[:5] for line in lines] == sorted((line[:5] for line in lines), key=float, reverse=True)


@pytest.mark.real
def test_async_client_lists_embeds_streams_and_shows_an_error(real: Server) -> None:
    printed = run("async_client.py", "smollm2", "minilm", url=real.url)

    assert re.search(r"^smollm2: text-generation, .*(ready|busy)$", printed, re.MULTILINE)
    assert re.search(r"^16 embeddings of width 384 from \d+ tokens$", printed, re.MULTILINE)
    assert re.search(r"^as expected: .*no-such-model", printed, re.MULTILINE)
    assert re.search(r"\b(red|blue|yellow|green)\b", printed)


def test_rerank_prints_every_document_by_falling_score(tmp_path: Path, serve) -> None:
    folder = tiny_cross_encoder(tmp_path / "tiny", max_position_embeddings=256)
    server: Server = serve(f'[models.ranker]\nsource = "{folder}"\npreload = true')

    lines = run("rerank_with_client.py", "ranker", url=server.url).splitlines()

    scores = [float(line.split()[0]) for line in lines]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert len({line[5:] for line in lines}) == 3


@pytest.mark.real
def test_engine_offline_needs_no_server(demo: Path, tmp_path: Path) -> None:
    state = {"MODELPORT_STATE_DIR": str(tmp_path / "state"), "HF_HUB_OFFLINE": "1"}

    printed = run("engine_offline.py", f"chat={CHAT}", f"embed={EMBED}", cwd=tmp_path, **state)

    assert "1.000  A man is eating food." in printed
    assert "Paris" in printed
    assert re.search(r"^chat ran on \S+ in \w+$", printed, re.MULTILINE)


def test_configuration_is_accepted_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "modelport", "config", "show", "--config", str(EXAMPLES / "modelport.toml"), "--json"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert '"models.chat.source"' in done.stdout


def test_suite_of_backends_passes_over_the_smallest(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGINS / "test_backend.py")]

    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """An environment in which the smallest API is installed."""
    scratch = Scratch(tmp_path_factory.mktemp("echo"))
    # a copy, so that building it leaves nothing in the tree
    copy = shutil.copytree(ECHO, scratch.folder / ECHO.name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    scratch.install(copy)
    return scratch


def test_smallest_api_is_sound_and_passes_its_own_tests(echo: Scratch) -> None:
    findings = json.loads(echo.run("modelport", "plugins", "check", "echo", "--json"))

    assert {finding["level"] for finding in findings} == {"ok"}
    echo.run("pytest", "-q", "-p", "no:cacheprovider", cwd=echo.folder / ECHO.name)


@pytest.mark.real
def test_smallest_api_gives_a_text_back_with_its_continuation(demo: Path, echo: Scratch) -> None:
    with echo.server(f"chat={CHAT}") as client:
        answer = client.post("/echo", json={"model": "chat", "text": "Once upon a time"})
        missing = client.post("/echo", json={"model": "nobody", "text": "hello"})

    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].startswith("Once upon a time")
    assert len(answer.json()["text"]) > len("Once upon a time")
    assert missing.status_code == 404
    assert "nobody" in missing.json()["error"]
