"""The template: made, installed in a scratch environment, seen by a restarted server, called, and its own tests run."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


class Scratch:
    """A virtual environment that sees everything installed beside this test, and has room for more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        self.python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        (packages,) = (folder / "venv").glob("[Ll]ib/**/site-packages")
        parents = [path for path in sys.path if path.endswith("site-packages")]
        # unlike a plain path, a site folder has its own .pth files read: editable installs of the plugins
        (packages / "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in parents))
        self.env = os.environ | {
            "MODELPORT_STATE_DIR": str(folder / "state"),
            "MODELPORT_CACHE_DIR": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        command = [str(self.python), "-m", *arguments]
        done = subprocess.run(command, cwd=cwd or self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def install(self, folder: Path) -> None:
        command = ["pip", "--python", str(self.python), "install", "--quiet", "--no-deps", "--no-build-isolation", str(folder)]
        done = subprocess.run([sys.executable, "-m", *command], env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def server(self, *arguments: str) -> Iterator[httpx.Client]:
        command = [str(self.python), "-m", "modelport", "serve", "--port", "0", *arguments]
        process = subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        lines: queue.Queue[str] = queue.Queue()
        said: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            threading.Thread(target=lambda: [lines.put(line) for line in process.stdout or ()], daemon=True),
            threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            try:
                line = lines.get(timeout=60)
            except queue.Empty:
                pytest.fail("the server did not announce itself: " + "".join(said))
            with httpx.Client(base_url=line.split()[-1], timeout=60) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            for reader in readers:
                reader.join()
            with process:  # closes its pipes
                pass


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("scratch"))


def plugins(scratch: Scratch) -> dict[str, dict[str, str]]:
    listed = json.loads(scratch.run("modelport", "plugins", "list", "skills", "--json"))
    return {plugin["name"]: plugin for plugin in listed}


def test_a_new_skill_is_served_after_pip_install_and_a_restart(scratch: Scratch) -> None:
    assert "shout" not in plugins(scratch)
    with scratch.server() as client:
        unknown = client.post("/v1/infer/shout", json={"text": "hello"})
        assert unknown.status_code == 404
        assert 'no model "shout"' in unknown.json()["error"]["message"]

    scratch.run("modelport", "plugins", "new", "skill", "shout")
    made = scratch.folder / "modelport-skill-shout"
    assert (made / "src/modelport_skill_shout/__init__.py").is_file()
    scratch.install(made)

    assert plugins(scratch)["shout"]["state"] == "enabled"
    assert plugins(scratch)["shout"]["distribution"] == "modelport-skill-shout"
    with scratch.server() as client:
        answer = client.post("/v1/infer/shout", json={"text": "hello"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"] == {"text": "HELLO"}
        catalog = client.get("/v1/catalog").json()
        assert "shout" in {model["id"] for model in catalog["models"]}
        assert catalog["tasks"]["shout"]["schema"]["request"]
        wrong = client.post("/v1/infer/shout", json={"txt": "hello"})
        assert wrong.status_code == 400

    with scratch.server("loud=skill:shout") as client:
        assert client.post("/v1/infer/loud", json={"text": "hello"}).json()["result"] == {"text": "HELLO"}

    scratch.run("pytest", "-q", "-p", "no:cacheprovider", cwd=made)


def test_a_new_skill_of_another_name_carries_that_name_everywhere(scratch: Scratch) -> None:
    scratch.run("modelport", "plugins", "new", "skill", "word_count")
    made = scratch.folder / "modelport-skill-word-count"

    text = "".join(path.read_text(encoding="utf-8") for path in made.rglob("*") if path.is_file())

    assert "shout" not in text.lower()
    assert (made / "src/modelport_skill_word_count/__init__.py").is_file()
    scratch.install(made)
    assert plugins(scratch)["word_count"]["state"] == "enabled"
    scratch.run("pytest", "-q", "-p", "no:cacheprovider", cwd=made)
