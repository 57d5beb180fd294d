"""Fetching checkpoints: folders, the Hub, its cache, and every way in which it fails."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelport.contract.errors import ConfigurationError, ModelportError, Unavailable
from modelport.core.catalog.checkpoint import Checkpoints
from modelport.core.catalog.download import Job, explain
from modelport.core.config.settings import LimitSettings, Settings

SETTINGS = Settings(limits=LimitSettings(load_stall_s=60))


@pytest.fixture
def fetching(hub: Any, tmp_path: Path) -> Callable[..., Checkpoints]:
    def make(settings: Settings = SETTINGS, resolvers: Any = (), **env: str) -> Checkpoints:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return Checkpoints(
            settings,
            resolvers,
            {
                **clean,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "hf"),
                "XDG_CACHE_HOME": str(tmp_path / "cache"),
                "HF_HUB_DISABLE_XET": "1",
                **env,
            },
        )

    return make


def files(**more: bytes) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": b"w" * 1000, "tokenizer.json": b"{}", **more}


async def test_local_folder_is_taken_as_it_is(fetching: Any, tmp_path: Path) -> None:
    assert await fetching().fetch(str(tmp_path)) == tmp_path


async def test_folder_that_does_not_exist_says_what_to_do(fetching: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^The folder /no/such does not exist\. Correct the source, or give a Hub id"):
        await fetching().fetch("/no/such")


async def test_repository_is_fetched_once_with_progress_and_then_read_from_the_cache(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files()
    steps: list[tuple[str, float]] = []

    folder = await fetching(HF_TOKEN="hf_secret").fetch("org/m", None, lambda what, fraction: steps.append((what, fraction)))

    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == b"w" * 1000
    assert (steps[0], steps[-1]) == (("fetching org/m", 0.0), ("fetching org/m", 1.0))
    assert "Bearer hf_secret" in hub.tokens
    hub.requests.clear()
    assert await fetching().fetch("org/m@main") == folder
    assert hub.requests == []


async def test_weights_come_once_and_in_safetensors(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files(
        **{
            "pytorch_model.bin": b"p",
            "tf_model.h5": b"t",
            "onnx/model.onnx": b"o",
            "original/consolidated.00.pth": b"c",
            "model.fp16.safetensors": b"h",
            "1_Dense/model.safetensors": b"d",
            "1_Pooling/config.json": b"{}",
            "README.md": b"#",
        }
    )

    folder = await fetching().fetch("org/m")

    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == [
        "1_Dense/model.safetensors",
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


async def test_two_fetches_at_once_are_one_download(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files()
    checkpoints = fetching()

    first, second = await asyncio.gather(checkpoints.fetch("org/m"), checkpoints.fetch("org/m"))

    assert first == second
    assert len([request for request in hub.requests if request == "GET org/m/resolve/" + "a" * 40 + "/model.safetensors"]) == 1


async def test_file_that_went_missing_is_fetched_again(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files()
    folder = await fetching().fetch("org/m")
    (folder / "tokenizer.json").unlink()

    await fetching().fetch("org/m")

    assert (folder / "tokenizer.json").is_file()


async def test_gated_repository_says_to_accept_the_licence(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files()
    hub.gated.add("org/m")

    with pytest.raises(ConfigurationError) as caught:
        await fetching().fetch("org/m")

    assert caught.value.message == (
        f"org/m is gated: accept its licence at {hub.url}/org/m while logged in, and set HF_TOKEN to a token of that account."
    )


async def test_misspelt_repository_is_told_the_cached_one_that_is_near(fetching: Any, hub: Any) -> None:
    hub.repos["org/model"] = files()
    await fetching().fetch("org/model")

    with pytest.raises(ConfigurationError) as caught:
        await fetching().fetch("org/modle")

    assert caught.value.message == (
        "The Hub has no model org/modle, or it is private. Did you mean org/model? Check the spelling; for a "
        "private one set HF_TOKEN."
    )


async def test_unknown_revision_says_so(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files()

    with pytest.raises(
        ConfigurationError, match=r"^org/m has no revision 'v9'\. Name a branch, a tag or a commit that it has\.$"
    ):
        await fetching().fetch("org/m", "v9")


async def test_pickle_only_repository_is_refused_before_anything_is_fetched(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = {"config.json": b"{}", "pytorch_model.bin": b"p"}

    with pytest.raises(
        ConfigurationError, match=r"^The weights of org/m are pickle only \(pytorch_model\.bin\)\. Pickle can run"
    ):
        await fetching().fetch("org/m")

    assert [request for request in hub.requests if "resolve" in request] == []


async def test_repository_without_config_says_so(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = {"model.gguf": b"g"}

    with pytest.raises(
        ConfigurationError, match=r"^org/m on the Hub holds no config\.json, so it is not a transformers checkpoint"
    ):
        await fetching().fetch("org/m")


async def test_repository_that_does_not_fit_is_refused_before_it_is_fetched(fetching: Any, hub: Any, tmp_path: Path) -> None:
    hub.repos["org/m"] = files()
    hub.sizes["org/m", "model.safetensors"] = 10**18

    with pytest.raises(
        ConfigurationError, match=r"^org/m needs 1000 PB and .* has room for .*\. Free some space, or set HF_HOME"
    ):
        await fetching().fetch("org/m")

    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_full_disk_is_one_sentence() -> None:
    wrapped = RuntimeError("write failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")

    error = explain(wrapped, Job("org/m"))

    assert error.message == "The disk is full while fetching org/m. Free some space, or set HF_HOME to a larger disk."


async def test_no_network_is_one_sentence(fetching: Any) -> None:
    with pytest.raises(Unavailable) as caught:
        await fetching(HF_ENDPOINT="http://127.0.0.1:9").fetch("org/m")

    assert caught.value.message == (
        "The Hub could not be reached to fetch org/m. Check the network, or give a local folder as the source."
    )


async def test_hub_in_trouble_is_one_sentence(fetching: Any, hub: Any) -> None:
    hub.failing = 418

    with pytest.raises(Unavailable, match=r"^The Hub answered 418 while org/m was fetched\. Try again later\.$"):
        await fetching().fetch("org/m")


@pytest.mark.parametrize("how", ["settings", "HF_HUB_OFFLINE"])
async def test_offline_serves_what_is_cached_and_asks_nobody(fetching: Any, hub: Any, how: str, tmp_path: Path) -> None:
    hub.repos["org/m"] = files()
    folder = await fetching().fetch("org/m")
    hub.requests.clear()
    offline = fetching(Settings(offline=True)) if how == "settings" else fetching(HF_HUB_OFFLINE="1")

    assert await offline.fetch("org/m") == folder
    with pytest.raises(ConfigurationError) as caught:
        await offline.fetch("org/other")

    assert caught.value.message == (
        f"org/other is not in the cache ({tmp_path}/hf/hub), and modelport is offline. Fetch it once while online, or give a "
        "local folder as the source."
    )
    assert hub.requests == []


async def test_snapshot_of_another_program_is_completed_online_and_taken_when_the_hub_is_gone(
    fetching: Any, hub: Any, tmp_path: Path
) -> None:
    storage = tmp_path / "hf/hub/models--org--m"
    snapshot = storage / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(b"{}")
    (storage / "refs").mkdir()
    (storage / "refs" / "main").write_text("a" * 40)

    assert await fetching(HF_ENDPOINT="http://127.0.0.1:9").fetch("org/m") == snapshot
    hub.repos["org/m"] = files()
    assert await fetching().fetch("org/m") == snapshot
    assert (snapshot / "model.safetensors").is_file()


async def test_download_without_a_byte_for_too_long_is_given_up(fetching: Any, hub: Any) -> None:
    hub.repos["org/m"] = files()
    hub.hold = threading.Event()

    with pytest.raises(Unavailable, match=r"^Fetching org/m stalled: no byte came for 1 s\. Check the network and try again\.$"):
        await fetching(Settings(limits=LimitSettings(load_stall_s=1))).fetch("org/m")


async def test_cancelling_ends_the_download_and_its_process(fetching: Any, hub: Any, children: Any) -> None:
    hub.repos["org/m"] = files()
    hub.hold = threading.Event()
    started = asyncio.Event()
    task = asyncio.create_task(fetching().fetch("org/m", None, lambda what, fraction: started.set()))
    await started.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(asyncio.all_tasks()) == 1
    assert children() == set()


class Bucket:
    name = "bucket"

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def resolve(self, source: str, revision: str | None) -> Path | None:
        if self.folder is None:
            raise OSError("no bucket")
        return self.folder if source.startswith("s3://") else None


async def test_resolver_answers_for_its_sources_and_one_that_raises_is_skipped(fetching: Any, tmp_path: Path) -> None:
    checkpoints = fetching(resolvers=[Bucket(None), Bucket(tmp_path)])

    assert await checkpoints.fetch("s3://b/m") == tmp_path


async def test_source_that_nobody_knows_says_so(fetching: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^'ftp://x' is no local folder, no Hub id \(org/model\), and no installed resolver"
    ):
        await fetching().fetch("ftp://x")


def test_unforeseen_error_is_named() -> None:
    error = explain(RuntimeError("odd"), Job("org/m", "v1"))

    assert type(error) is ModelportError
    assert error.message == "Fetching org/m at v1 failed with RuntimeError: odd"
