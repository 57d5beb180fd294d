"""The cache of conversions: made once, whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from modelport.contract import ArraySpec, ConfigurationError, Forward, LoadContext, Output, Program
from modelport.contract.backend import Progress
from modelport.testing.checkpoints import tiny_bert
from modelport_backend_openvino.backend import conversions
from modelport_convert.cache import ConversionCache
from modelport_convert.job import Job

INPUTS = (ArraySpec("input_ids"), ArraySpec("attention_mask"))
ORIGINAL = {"weights": "original"}
PROGRAM = Program({"main": Forward(head="feature-extraction", inputs=INPUTS, outputs=(Output("last_hidden_state"),))})

WORKER = """
import sys, msgspec
from pathlib import Path
from modelport.contract import LoadContext
from modelport_backend_openvino.backend import OpenVinoBackend

context = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=LoadContext, dec_hook=lambda kind, value: kind(value))
runner = OpenVinoBackend().load(context, lambda what, fraction: print(what, flush=True))
runner.close()
assert not {"torch", "transformers"} & set(sys.modules)
"""


@pytest.fixture
def tiny(tmp_path: Path, context: Callable[..., LoadContext]) -> LoadContext:
    return context(tiny_bert(tmp_path / "bert"), PROGRAM, options={"cache": str(tmp_path / "cache")})


@pytest.fixture
def cache(tiny: LoadContext) -> ConversionCache:
    return conversions(tiny.options)


def quiet(what: str, fraction: float) -> None: ...


def writes(job: Job, progress: Progress) -> None:
    (Path(job.out) / "main").mkdir()
    (Path(job.out) / "main" / "openvino_model.xml").write_text("<net/>")


def worker(context: LoadContext, folder: Path) -> subprocess.Popen[str]:
    """A process that loads as a worker does, with the real converter."""
    given = folder / "context"
    given.write_bytes(msgspec.msgpack.encode(context, enc_hook=str))
    return subprocess.Popen([sys.executable, "-c", WORKER, given], stdout=subprocess.PIPE, text=True)


def test_what_was_converted_is_not_converted_again(cache: ConversionCache, tiny: LoadContext) -> None:
    folder = cache.get(tiny, ORIGINAL, writes, quiet)
    assert (folder / "main" / "openvino_model.xml").exists()

    def never(job: Job, progress: Progress) -> None:
        raise AssertionError("converted twice")

    assert cache.get(tiny, ORIGINAL, never, quiet) == folder


def test_whatever_changes_the_result_changes_the_name(cache: ConversionCache, tiny: LoadContext) -> None:
    other = msgspec.structs.replace
    entry = other(PROGRAM.forward("main"), outputs=(Output("pooler_output"),))
    changed = [
        other(tiny, program=Program({"main": entry})),
        other(tiny, card=other(tiny.card, revision="abc")),
        other(tiny, card=other(tiny.card, dtype="bfloat16")),
    ]
    names = {cache.key(tiny, ORIGINAL), cache.key(tiny, {"weights": "int8"}), *(cache.key(each, ORIGINAL) for each in changed)}
    assert len(names) == 5
    assert cache.key(tiny, ORIGINAL) == cache.key(other(tiny, dtype="bfloat16", threads=7), ORIGINAL)
    (Path(tiny.checkpoints["main"]) / "model.safetensors").write_bytes(b"other weights")
    assert cache.key(tiny, ORIGINAL) not in names


def test_a_conversion_that_fails_leaves_nothing_and_may_be_tried_again(cache: ConversionCache, tiny: LoadContext) -> None:
    def fails(job: Job, progress: Progress) -> None:
        writes(job, progress)
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError, match="no"):
        cache.get(tiny, ORIGINAL, fails, quiet)
    assert [path for path in cache.root.iterdir() if path.suffix != ".lock"] == []
    assert cache.get(tiny, ORIGINAL, writes, quiet).is_dir()


def test_a_full_disk_is_said_with_what_to_do(cache: ConversionCache, tiny: LoadContext) -> None:
    def full(job: Job, progress: Progress) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), job.out)

    with pytest.raises(ConfigurationError, match=r"No space left on device \(.*\)\. Make room, or set backends\.openvino\.cache"):
        cache.get(tiny, ORIGINAL, full, quiet)


def test_a_disk_without_room_is_seen_before_the_work(cache: ConversionCache, tiny: LoadContext) -> None:
    huge = msgspec.structs.replace(tiny, card=msgspec.structs.replace(tiny.card, weight_bytes=10**18))
    with pytest.raises(ConfigurationError, match=r"takes about 1000000000\.0 GB, and .* GB are free .* Make room"):
        cache.get(huge, ORIGINAL, writes, quiet)


def test_two_models_over_one_checkpoint_share_a_conversion(cache: ConversionCache, tiny: LoadContext) -> None:
    other = msgspec.structs.replace(tiny, card=msgspec.structs.replace(tiny.card, name="another-name"))
    assert cache.key(tiny, ORIGINAL) == cache.key(other, ORIGINAL)


def test_two_at_once_convert_once_and_the_second_says_that_it_waits(cache: ConversionCache, tiny: LoadContext) -> None:
    begun, go, waits, told = threading.Event(), threading.Event(), threading.Event(), []

    def slow(job: Job, progress: Progress) -> None:
        told.append("converted")
        begun.set()
        assert go.wait(30)
        writes(job, progress)

    def says(what: str, fraction: float) -> None:
        if "waiting" in what:
            waits.set()

    threads = [threading.Thread(target=cache.get, args=(tiny, ORIGINAL, slow, says)) for _ in range(2)]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    assert waits.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert told == ["converted"]


def test_a_killed_conversion_leaves_no_half_model_and_no_child(cache: ConversionCache, tiny: LoadContext, tmp_path: Path) -> None:
    first = worker(tiny, tmp_path)
    assert first.stdout is not None
    with first.stdout:
        assert any(line.startswith("converting") for line in first.stdout)
        children = psutil.Process(first.pid).children()
        assert [child for child in children if "modelport_backend_openvino.convert" in child.cmdline()]
        first.send_signal(signal.SIGKILL)
        first.wait()
    _, alive = psutil.wait_procs(children, 30)
    assert not alive, "the converter outlives its worker"
    assert not (cache.root / cache.key(tiny, ORIGINAL)).exists()

    second = worker(tiny, tmp_path)
    told, _ = second.communicate(timeout=120)
    assert second.returncode == 0, "the worker imported torch, or could not load"
    assert "converting main" in told
    assert not list(cache.root.glob("*.part"))
    third, _ = worker(tiny, tmp_path).communicate(timeout=120)
    assert "converting main" not in third


def test_what_cannot_be_converted_is_said_in_one_sentence(tiny: LoadContext, tmp_path: Path) -> None:
    from modelport_backend_openvino.backend import OpenVinoBackend

    (Path(tiny.checkpoints["main"]) / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ConfigurationError, match=r"^OpenVINO cannot convert this model: the checkpoint .* cannot be loaded"):
        OpenVinoBackend().load(tiny, quiet)
