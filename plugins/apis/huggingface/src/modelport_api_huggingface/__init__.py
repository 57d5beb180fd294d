"""The dialects of Hugging Face: the Inference API's routes for every task, and those of TGI and TEI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelport import hookimpl
from modelport.contract.api import Api, ErrorReply
from modelport.contract.errors import ConfigurationError, ModelportError
from modelport_api_huggingface.errors import dialect_of, error_reply

__all__ = ["MODELPORT_CONTRACT", "HuggingFace", "register_apis"]

MODELPORT_CONTRACT = "1.0"


class HuggingFace(Api):
    """The surface. Its one option, `model`, names the model of those routes that name none."""

    name = "huggingface"
    prefixes = ("/models",)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(dict(options or {}))
        if unknown := sorted(set(self.options) - {"model"}):
            names = ", ".join(f"apis.huggingface.{name}" for name in unknown)
            raise ConfigurationError(f"Unknown: {names}. The huggingface surface has one option, `model`.")
        self._model = self.options.get("model", "")
        if not isinstance(self._model, str):
            raise ConfigurationError(
                "apis.huggingface.model must be the name of a model, as text.", param="apis.huggingface.model"
            )

    def routes(self) -> Sequence[Any]:
        from litestar import Router

        from modelport_api_huggingface import chat, hub, shared, simple, tei, tgi

        handlers = [*simple.HANDLERS, *hub.HANDLERS, *chat.HANDLERS, *tgi.HANDLERS, *tei.HANDLERS, *shared.HANDLERS]
        return [Router("/", route_handlers=handlers, opt={"huggingface_model": self._model})]

    def error(self, error: ModelportError, path: str) -> ErrorReply | None:
        return error_reply(error, dialect_of(path))


@hookimpl
def register_apis(options: Mapping[str, Any]) -> Sequence[Api]:
    """The one surface of this plugin."""
    return [HuggingFace(options)]
