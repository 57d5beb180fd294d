"""/models/{id}/v1/chat/completions: conversations with the model that the path names, answered by the plugin openai.

The official client appends `/v1/chat/completions` to a model's address, and then calls the model "dummy". The request goes on
to the server's own /v1/chat/completions with the name put in.
"""

from __future__ import annotations

import msgspec
from litestar import Response, post

from modelport.contract.api import decode_body, model_id, model_route
from modelport.contract.errors import InvalidRequest
from modelport_api_huggingface.answer import AnyRequest
from modelport_api_huggingface.forward import CHAT, Forwarded

__all__ = ["HANDLERS"]


@post(model_route("/models", CHAT), status_code=200, summary="Conversations with a model, continued", tags=["hub"])
async def chat(request: AnyRequest) -> Response[bytes]:
    """Conversations, continued, in OpenAI's form."""
    body = await request.body()
    try:
        fields = decode_body(body, dict[str, msgspec.Raw])
    except InvalidRequest:  # no object: whoever answers says so in its own words
        return Forwarded(request, CHAT, body, in_its_words=True)
    named = msgspec.json.encode({**fields, "model": model_id(**request.path_params)})
    return Forwarded(request, CHAT, named, in_its_words=True)


HANDLERS = (chat,)
