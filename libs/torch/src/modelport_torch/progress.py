"""The progress of transformers' loading, reported to modelport instead of drawn on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from modelport.contract.backend import Progress

__all__ = ["reported"]


@contextmanager
def reported(progress: Progress, low: float = 0.0, high: float = 1.0) -> Iterator[None]:
    """While it is open, the bars that transformers makes report to `progress`, scaled to `low`…`high`, and draw nothing."""
    from transformers.utils import logging

    previous = logging.set_tqdm_hook(lambda factory, args, kwargs: _Bar(progress, low, high, *args, **kwargs))
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)


class _Bar:
    """As much of tqdm as transformers' loading uses."""

    def __init__(
        self,
        progress: Progress,
        low: float,
        high: float,
        iterable: Iterable[Any] | None = None,
        *_: Any,
        total: float | None = None,
        desc: str | None = None,
        **__: Any,
    ) -> None:
        self._iterable = iterable if iterable is not None else ()
        if total is None:
            try:
                total = len(self._iterable)  # type: ignore[arg-type]
            except TypeError:
                total = 0
        self.total = total
        self.n = 0.0
        self._progress, self._low, self._high = progress, low, high
        self._what = (desc or "loading").lower()
        self._shown = -1.0

    def __iter__(self) -> Iterator[Any]:
        for item in self._iterable:
            yield item
            self.update(1)

    def __len__(self) -> int:
        return int(self.total)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> Callable[..., None]:
        """set_postfix, set_description, refresh, close …: nothing to draw."""
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None

    def update(self, n: float = 1) -> None:
        self.n += n
        fraction = min(self.n / self.total, 1.0) if self.total else 0.0
        if fraction - self._shown >= 0.01:
            self._shown = fraction
            self._progress(self._what, self._low + (self._high - self._low) * fraction)
