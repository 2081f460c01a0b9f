"""One log for us and for the libraries that use `logging`: structlog, to stderr."""

from __future__ import annotations

import logging
import sys

import structlog

# Never with local variables: they hold tokens, keys and whatever else a caller sent.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_SHARED = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: str, form: str) -> None:
    """`level` is debug, info, warning or error; `form` is console, json, or auto.

    auto is console on a terminal and json everywhere else. Replaces the root handler.
    """
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(is_console),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Their debug and info are about themselves.
    for name in ("uvicorn", "asyncio", "grpc"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _renderers(is_console: bool) -> list[structlog.types.Processor]:
    if is_console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return [_TRACEBACKS, structlog.processors.JSONRenderer()]
