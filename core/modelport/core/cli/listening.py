"""What `modelport serve` does once its configuration stands: build, bind, announce, serve."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import sys
from collections.abc import Sequence
from typing import TextIO, cast

import msgspec
import rich_click as click

from modelport.core.config.load import Loaded
from modelport.core.config.settings import Settings

__all__ = ["Announcement", "is_loopback", "run_server", "with_families_if_empty"]

_TRY = {
    "smollm2-135m-instruct": (
        "/v1/chat/completions",
        {
            "model": "smollm2-135m-instruct",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
        },
    ),
    "all-minilm-l6-v2": (
        "/v1/embeddings",
        {"model": "all-minilm-l6-v2", "input": "A man is eating food.", "encoding_format": "float"},
    ),
}


class Announcement:
    """Prints that the server listens, to stdout, where a script can wait for it.

    Args:
        as_json: One JSON object instead of the line.
        demo_models: Demo models that are served, each of which gets a curl line to try.
    """

    def __init__(self, *, as_json: bool = False, demo_models: Sequence[str] = ()) -> None:
        self._as_json = as_json
        self._demo_models = demo_models

    def __call__(self, line: str) -> None:
        url = line.rsplit(" ", 1)[-1]
        click.echo(json.dumps({"event": "serving", "url": url}) if self._as_json else line)
        # a reader at the other end of a pipe must get it now
        sys.stdout.flush()
        if self._demo_models and not self._as_json:
            click.echo("\nTry, in another terminal:\n")
            for path, body in (_TRY[name] for name in self._demo_models if name in _TRY):
                click.echo(f"  curl {url}{path} -H 'content-type: application/json' -d '{json.dumps(body)}'\n")
            sys.stdout.flush()


def with_families_if_empty(loaded: Loaded) -> tuple[Settings, str]:
    """The settings, and advice if they name no model: then requests may name families, as long as only this machine can ask."""
    settings = loaded.settings
    if settings.models:
        return settings, ""
    advice = (
        "No model is named. Try `modelport serve --demo`, or `modelport serve org/model`, or name models in a configuration file."
    )
    if settings.allow_families or "allow_families" in loaded.origins or not is_loopback(settings.server.host):
        return settings, advice
    advice += "\nUntil then requests may name a family, such as hf_bert: its default checkpoint is fetched when first asked for."
    return msgspec.structs.replace(settings, allow_families=True), advice


def run_server(settings: Settings, announce: Announcement) -> None:
    """Serves until it is told to stop. Returns after the drain.

    Raises:
        ConfigurationError: it cannot start; the message says why and what to do.
    """
    from modelport.core.app import Application
    from modelport.core.cli.watching import show_loads
    from modelport.core.observe.logs import configure
    from modelport.core.server.listen import Listener, bind
    from modelport.core.worker.garbage import settle
    from modelport.core.worker.loop import loop_factory

    configure(settings.log_level, settings.log_format, cast("TextIO", Stderr()))

    async def serve() -> None:
        application = Application.build(settings)

        async def startup() -> None:
            await application.startup()
            settle()

        bound = bind(settings.server, application.keys_in_force)
        listener = Listener(
            application.asgi,
            bound,
            settings.server,
            startup=startup,
            shutdown=application.shutdown,
            on_drain=application.drain,
            announce=announce,
        )
        async with show_loads(application.host, only_live=True):
            await listener.serve()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())


class Stderr(io.TextIOBase):
    """Standard error as it is at each write: rich puts itself there while it shows progress, so that lines do not cut through."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
