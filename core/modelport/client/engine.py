"""Models without a server: the same host, catalog and workers, called from plain Python.

::

    from modelport import Engine

    with Engine("sentence-transformers/all-MiniLM-L6-v2", "chat=./smollm2") as engine:
        vectors = engine.embed("sentence-transformers/all-MiniLM-L6-v2", ["a text", "another"])
        print(engine.generate("chat", "The capital of France is", max_new_tokens=8, temperature=0.0))
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec
import numpy as np
import structlog

from modelport.contract.errors import InvalidRequest, ModelportError
from modelport.contract.host import ModelInfo
from modelport.contract.reply import Options, Reply
from modelport.contract.task import decode_hook
from modelport.tasks.text import EmbeddingRequest, GenerationRequest

if TYPE_CHECKING:
    from modelport.core.app import Application
    from modelport.core.config.settings import Settings

__all__ = ["Engine"]

T = TypeVar("T")
_NO_LIMIT_S = 86_400.0


class Engine:
    """Serves models to this process alone. Threads may share one; close it, or use it in a `with` block.

    Models load at their first request and run in processes of their own, so a script needs the usual
    `if __name__ == "__main__":` for nothing: workers are started afresh and import only their plugins.

    Args:
        sources: Models as `modelport serve` takes them: `[NAME=]SOURCE`, a Hub id, a folder or a family.
        config: A configuration file; by default `$MODELPORT_CONFIG`, else `modelport.toml` if there is one.
        executor: Where models run: `process`, or `thread` to stay in this process.
        settings: A whole configuration instead of a file, sources and options.
        options: Keys of `[models.NAME]` for every source (`dtype="float32"`, `max_length=512`).

    Raises:
        ConfigurationError: it cannot work like this; the message has every reason.
    """

    def __init__(
        self,
        *sources: str,
        config: str | Path | None = None,
        executor: Literal["process", "thread"] = "process",
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        from modelport.core.app import Application
        from modelport.core.serving.principal import anonymous

        _be_quiet()
        chosen = _settings(sources, config, options) if settings is None else settings
        self._application: Application = Application.build(_for_one(chosen, executor), in_server=False)
        self._principal = anonymous()
        self._loop = asyncio.new_event_loop()
        self._closing = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._live, name="modelport-engine", daemon=True)
        self._thread.start()
        try:
            self._wait(self._application.startup())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends every model, and its process. Idempotent."""
        with self._closing:
            if self._is_closed:
                return
            try:
                self._wait(self._application.host.stop(0))
            finally:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()

    @property
    def models(self) -> Sequence[ModelInfo]:
        """Every model, with its state and what is known of it."""
        return self._wait(self._on_loop(self._application.host.models))

    def load(self, model: str) -> ModelInfo:
        """Loads a model now; otherwise its first request does.

        Raises:
            Unavailable: it could not be loaded; the message is the cause.
        """
        return self._wait(self._application.host.load(self._principal, model))

    def unload(self, model: str) -> ModelInfo:
        """Unloads a model; its next request loads it again."""
        return self._wait(self._application.host.unload(self._principal, model))

    def placement(self, model: str) -> Mapping[str, Any]:
        """Where and how a model runs, and every other place with the reason against it, with the keys of `Client.placement`."""
        return self._wait(self._on_loop(self._application.host.placement, model))

    def run(self, task: str, model: str, request: msgspec.Struct | Mapping[str, Any], options: Options = Options()) -> Reply[Any]:
        """Answers one request of any task; a mapping has the fields of the task's request.

        Raises:
            ModelportError: of the kind that says why not.
        """
        struct = self._request(task, request)
        return self._wait(self._application.host.run(task, model, struct, self._principal, None, options))

    def stream(
        self, task: str, model: str, request: msgspec.Struct | Mapping[str, Any], options: Options = Options()
    ) -> Iterator[Any]:
        """The deltas of a streamed answer. Leaving the loop cancels the request.

        Raises:
            ModelportError: before the first delta or between two.
        """
        struct = self._request(task, request)
        stream = self._wait(self._application.host.stream(task, model, struct, self._principal, None, options))
        try:
            while (delta := self._wait(_next(stream))) is not None:
                yield delta
        finally:
            if not self._is_closed:
                self._wait(stream.aclose())

    def generate(self, model: str, prompt: str | Sequence[Mapping[str, Any]], **fields: Any) -> str:
        """The text that follows a prompt, or the answer to a conversation (`[{"role": "user", "content": "…"}]`).

        Args:
            model: The model.
            prompt: A text, or messages.
            fields: Further fields of `GenerationRequest` (`max_new_tokens=32`, `temperature=0.0`).
        """
        text = {"prompt": prompt} if isinstance(prompt, str) else {"messages": list(prompt)}
        reply = self.run("text-generation", model, _convert({**text, **fields}, GenerationRequest))
        return str(reply.result.choices[0].text)

    def embed(self, model: str, inputs: str | Sequence[str], **fields: Any) -> np.ndarray:
        """One vector per text, (texts, width) float32.

        Args:
            model: The model.
            inputs: One text or several.
            fields: Further fields of `EmbeddingRequest` (`normalize=True`, `dimensions=128`).
        """
        texts = inputs if isinstance(inputs, str) else list(inputs)
        reply = self.run("feature-extraction", model, _convert({"inputs": texts, **fields}, EmbeddingRequest))
        return np.asarray(reply.result.embeddings)

    def _request(self, task: str, request: msgspec.Struct | Mapping[str, Any]) -> msgspec.Struct:
        if isinstance(request, msgspec.Struct):
            return request
        definition = self._application.host.tasks().get(task)
        if definition is None:
            known = ", ".join(sorted(self._application.host.tasks()))
            raise InvalidRequest(f"No installed skill does {task!r}. Tasks: {known or 'none'}.", param="task")
        converted: msgspec.Struct = _convert(request, definition.request)
        return converted

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._is_closed:
            work.close()
            raise ModelportError("The engine is closed. Make a new one.")
        if threading.current_thread() is self._thread:
            work.close()
            raise ModelportError("The engine was called from its own thread, which would wait for itself.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt at the keyboard ends the request, too
            raise

    async def _on_loop(self, function: Any, *arguments: Any) -> Any:
        return function(self._principal, *arguments)

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


async def _next(stream: Any) -> Any:
    """The next delta, or None at the end: StopAsyncIteration cannot travel through a future."""
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None


def _settings(sources: Sequence[str], config: str | Path | None, options: Mapping[str, Any]) -> Settings:
    from modelport.core.config.load import load
    from modelport.core.config.named import models_of

    models = models_of(sources, options)
    return load(Path(config) if config is not None else None, os.environ, {"models": models} if models else {}).settings


def _for_one(settings: Settings, executor: str) -> Settings:
    """Nobody else waits for these models: a load may take its time, and there are no keys."""
    limits = msgspec.structs.replace(settings.limits, load_wait_s=_NO_LIMIT_S, retry_failed_s=0.0)
    models = dict(settings.models)
    if executor == "thread":
        models = {name: msgspec.structs.replace(model, isolation="thread") for name, model in models.items()}
    return msgspec.structs.replace(settings, limits=limits, models=models)


def _be_quiet() -> None:
    """Warnings on stderr and nothing else, unless the program has set structlog up itself: stdout is the program's."""
    if not structlog.is_configured():
        level = structlog.make_filtering_bound_logger(logging.WARNING)
        structlog.configure(wrapper_class=level, logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def _convert(fields: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The request is wrong: {error}.") from None
