"""A multipart form with a file, as the official client sends recordings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar, cast

import msgspec
from litestar.datastructures import UploadFile
from litestar.exceptions import HTTPException

from modelport.contract.api import decode_body
from modelport.contract.errors import InvalidRequest, ModelportError, PayloadTooLarge
from modelport.contract.task import Media
from modelport_api_openai.answer import AnyRequest
from modelport_api_openai.errors import invalid

__all__ = ["read_form"]

Body = TypeVar("Body", bound=msgspec.Struct)

_BOOLEANS = {"true": True, "false": False}


async def read_form(
    request: AnyRequest, kind: type[Body], *, numbers: Collection[str] = (), lists: Collection[str] = ()
) -> tuple[Media, Body]:
    """The file of the form, and its other fields as a `kind`.

    A form has texts only: those of `numbers` are read as numbers, `true` and `false` as such where the field is called `stream`,
    and fields of `lists` may come several times, with or without `[]` after their name.

    Raises:
        InvalidRequest: if it is no form, has no file or an empty one, or a field is unknown, wrong or there twice.
        PayloadTooLarge: if the fields beside the file are larger than JSON may be.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest("The body is no multipart/form-data, as which recordings are sent.")
    try:
        form = await request.form()
    except ModelportError:
        raise
    except (HTTPException, ValueError, LookupError) as error:  # the last for a charset that nobody knows
        why = " ".join(str(getattr(error, "detail", "") or error).split())[:200].rstrip(".")
        raise InvalidRequest(f"The body is no valid multipart/form-data: {why}.") from None
    files: list[UploadFile] = []
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        bare = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            if name != "file":
                raise invalid(name, f"The field '{name}' is a file; only 'file' may be one.")
            files.append(value)
        elif bare in lists:
            fields.setdefault(bare, []).append(value)
        elif name in fields:
            raise invalid(name, f"The field '{name}' is there twice. Send it once.")
        else:
            fields[name] = (
                _BOOLEANS.get(str(value).lower(), value) if name == "stream" else _number(value) if name in numbers else value
            )
    if sum(len(text) for _, text in form.multi_items() if isinstance(text, str)) > cast("int", request.app.request_max_body_size):
        raise PayloadTooLarge("The fields beside the file are larger than this server takes (limits.body_bytes).")
    if len(files) != 1:
        raise invalid("file", f"The field 'file' is required once, as a file; it came {len(files)} times.")
    body = decode_body(msgspec.json.encode(fields), kind)
    data = await files[0].read()
    if not data:
        raise invalid("file", "The field 'file' is empty. Send a recording.")
    return Media(data=data, mime=files[0].content_type or ""), body


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text  # the decoder will say what is wrong with it
