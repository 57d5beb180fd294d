"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

import time

import msgspec
from litestar import Response, get
from msgspec import UNSET, UnsetType

from modelport.contract.api import model_id, model_route
from modelport.contract.host import ModelInfo
from modelport_api_openai.answer import AnyRequest, HostDependency, answer

__all__ = ["list_models", "retrieve_model"]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model in OpenAI's form. `max_model_len`, the context length, is a common addition of other servers; `kind` is `family`
    for a family, which a request may name where no model is configured."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    max_model_len: int | UnsetType = UNSET
    kind: str | UnsetType = UNSET

    @classmethod
    def of(cls, info: ModelInfo) -> Model:
        """The model that `info` describes."""
        return cls(
            id=info.id,
            created=info.created,
            owned_by=info.owned_by or "modelport",
            max_model_len=UNSET if info.context_length is None else info.context_length,
            kind="family" if info.state == "family" else UNSET,
        )


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every model that the caller may use."""

    object: str = "list"
    data: list[Model]


@get("/v1/models", summary="List models", tags=["openai"])
async def list_models(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """Every model that the caller may use."""
    started = time.perf_counter()
    infos = host.models(host.principal(request.scope))
    return answer(ModelList(data=[Model.of(info) for info in infos]), started)


@get(model_route("/v1/models"), summary="One model", tags=["openai"])
async def retrieve_model(request: AnyRequest, host: HostDependency) -> Response[bytes]:
    """One model, by its id or an alias."""
    started = time.perf_counter()
    # Read from the path itself: as an argument, `owner` would be a query parameter of the form without one.
    name = model_id(**request.path_params)
    return answer(Model.of(host.model(host.principal(request.scope), name)), started)
