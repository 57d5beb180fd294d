"""The OpenAI dialect: models, embeddings, completions, chat completions, audio, and rerank beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelport import hookimpl
from modelport.contract.api import Api, ErrorReply
from modelport.contract.errors import ConfigurationError, ModelportError
from modelport_api_openai.errors import error_reply

__all__ = ["MODELPORT_CONTRACT", "OpenAI", "register_apis"]

MODELPORT_CONTRACT = "1.0"


class OpenAI(Api):
    """The surface. It has no options."""

    name = "openai"
    prefixes = ("/v1/models", "/v1/embeddings", "/v1/completions", "/v1/chat", "/v1/audio", "/v1/rerank", "/v2/rerank")

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        super().__init__(dict(options or {}))
        if self.options:
            names = ", ".join(f"apis.openai.{name}" for name in sorted(self.options))
            raise ConfigurationError(f"Unknown: {names}. The openai surface has no options; remove them.")

    def routes(self) -> Sequence[Any]:
        from modelport_api_openai.audio import create_transcription, create_translation
        from modelport_api_openai.chat import create_chat_completion
        from modelport_api_openai.completions import create_completion
        from modelport_api_openai.embeddings import create_embeddings
        from modelport_api_openai.models import list_models, retrieve_model
        from modelport_api_openai.rerank import rerank_v1, rerank_v2
        from modelport_api_openai.speech import create_speech

        return [
            list_models,
            retrieve_model,
            create_embeddings,
            create_completion,
            create_chat_completion,
            create_transcription,
            create_translation,
            create_speech,
            rerank_v1,
            rerank_v2,
        ]

    def error(self, error: ModelportError, path: str) -> ErrorReply | None:
        return error_reply(error, path)


@hookimpl
def register_apis(options: Mapping[str, Any]) -> Sequence[Api]:
    """The one surface of this plugin."""
    return [OpenAI(options)]
