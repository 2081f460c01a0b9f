"""One log for us and for the libraries that use `logging`: structlog, to stderr.

Nobody waits for who reads it: lines that find no room are lost, counted, and told of later.
"""

from __future__ import annotations

import logging
import sys

import structlog

from rtpfanout import stderr

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
    is_console = form == "console" or (form == "auto" and stderr.is_terminal())
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Lines()
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
    logging.captureWarnings(capture=True)
    # Their debug and info are about themselves.
    for name in ("uvicorn", "asyncio", "grpc"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def lost_lines() -> int:
    """Of this process, since its start."""
    return _Lines.lost


class _Lines(logging.Handler):
    """To descriptor 2, where `stderr` sees to it that no write blocks; else to sys.stderr."""

    lost = 0

    def __init__(self) -> None:
        super().__init__()
        self._told = _Lines.lost
        self._rest = b""  # of a long line that was written in part
        self._flows = True

    def handle(self, record: logging.LogRecord) -> bool:
        """And once it flows again, how many lines were lost."""
        handled = super().handle(record)
        if self._flows and self.lost > self._told:
            lines, self._told = self.lost - self._told, self.lost
            structlog.stdlib.get_logger(__name__).warning("log lines lost", lines=lines)
        return handled

    def emit(self, record: logging.LogRecord) -> None:
        """Whatever happens hurts nobody who has something to tell."""
        try:
            line = self.format(record) + "\n"
            if stderr.is_started():
                self._flows = self._write(line.encode(errors="backslashreplace"))
            elif sys.stderr:
                sys.stderr.write(line)
                sys.stderr.flush()
        except Exception:
            self._flows = False
        _Lines.lost += not self._flows

    def _write(self, line: bytes) -> bool:
        self._rest = self._rest[stderr.write(self._rest) :]
        written = 0 if self._rest else stderr.write(line)
        self._rest = self._rest or line[written:] * bool(written)
        return bool(written)


def _renderers(is_console: bool) -> list[structlog.types.Processor]:
    if is_console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=stderr.is_terminal(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    return [_TRACEBACKS, structlog.processors.JSONRenderer()]
