"""Log lines: pretty on a terminal, JSON otherwise, each line of a request with its id.

What is logged is named by the code that logs it. Prompts, outputs and keys are never among it.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["configure", "request_id"]

request_id: ContextVar[str] = ContextVar("modelport_request_id", default="")
"""The id of the request that the current task serves; empty outside of one."""


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["auto", "pretty", "json"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Sets up structlog and the standard library's logging, so that libraries' lines look like ours.

    Lines go to `stream`, by default standard error: standard output belongs to what commands print.
    """
    target = stream if stream is not None else sys.stderr
    pretty = format == "pretty" or (format == "auto" and target.isatty())
    numeric = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=target.isatty())]
        if pretty
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(numeric, logging.WARNING) if level != "debug" else logging.DEBUG)
    for chatty in ("httpx", "httpcore", "asyncio", "filelock", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _add_request_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    current = request_id.get()
    if current:
        event.setdefault("request_id", current)
    return event
