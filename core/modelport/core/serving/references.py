"""Media that a request holds as addresses: where they are, and the request with bytes in their place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from modelport.contract.task import Media

__all__ = ["filled", "references"]

_PARTS = frozenset({"image", "image_url", "audio", "audio_url", "input_audio", "video", "video_url"})
"""Types of a message's parts that hold media, and the keys that hold it."""

_KEYS = _PARTS | {"url"}


def references(request: msgspec.Struct) -> dict[str, str]:
    """The http and https addresses of media in a request, by the way to each field (`inputs.url`).

    They are those of `Media` in any field, and of parts of messages: `{type: image_url, image_url: {url}}`, or `{type: image}`
    with its address under `url` or under its type's name.
    """
    return dict(_found(request, ""))


def filled(request: Any, media: Mapping[str, Media]) -> Any:
    """`request` with `media`, by the same ways, in place of addresses. What holds none is the same object."""
    return _filled(request, "", media)


def _found(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Media):
        if not value.data and _is_address(value.url):
            yield _join(path, "url"), value.url
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _found(getattr(value, name), _join(path, name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _found(each, _join(path, str(index)))
    elif isinstance(value, dict):
        for key, each in value.items():
            address = _address(value, key)
            if address is not None:
                yield _join(path, str(key)), address
            else:
                yield from _found(each, _join(path, str(key)))


def _filled(value: Any, path: str, media: Mapping[str, Media]) -> Any:
    if isinstance(value, Media):
        return media.get(_join(path, "url"), value)
    if isinstance(value, msgspec.Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return _changed(value, fields, path, media, lambda new: msgspec.structs.replace(value, **new))
    if isinstance(value, list | tuple):
        return _changed(value, dict(enumerate(value)), path, media, lambda new: type(value)(new.values()))
    if isinstance(value, dict):
        return _changed(value, value, path, media, dict)
    return value


def _changed(
    value: Any, entries: Mapping[Any, Any], path: str, media: Mapping[str, Media], make: Callable[[dict[Any, Any]], Any]
) -> Any:
    new = {}
    for key, each in entries.items():
        way = _join(path, str(key))
        new[key] = media[way] if isinstance(value, dict) and way in media else _filled(each, way, media)
    return value if all(new[key] is each for key, each in entries.items()) else make(new)


def _address(part: Mapping[Any, Any], key: Any) -> str | None:
    """The address that `key` of a message's part holds, as it is or under `url`."""
    if part.get("type") not in _PARTS or key not in _KEYS:
        return None
    value = part[key]
    value = value.get("url") if isinstance(value, dict) else value
    return value if isinstance(value, str) and _is_address(value) else None


def _is_address(url: str) -> bool:
    return url[:8].lower().startswith(("http://", "https://"))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
