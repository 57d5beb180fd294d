"""The one route: decode, ask the host, encode."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency

from modelport.contract import Host, decode_body
from modelport.tasks.text import GenerationRequest


class Said(msgspec.Struct, forbid_unknown_fields=True):
    """What a caller sends."""

    model: str
    text: str


@post("/echo", status_code=200)
async def echo(request: Request[Any, Any, Any], host: NamedDependency[Host]) -> dict[str, str]:
    said = decode_body(await request.body(), Said)
    asked = GenerationRequest(prompt=said.text, max_new_tokens=16, temperature=0.0)
    # with the scope, the host sees that the caller has left, and stops the model
    reply = await host.run("text-generation", said.model, asked, host.principal(request.scope), request.scope)
    return {"text": said.text + reply.result.choices[0].text}
