"""Logging: one chain of processors for our events and the libraries' lines alike.

We log events, not prose: a fixed name and key-value pairs (`log.info("migration_stalled", host=..., reason=...)`).
`configure` puts a single formatter of structlog on the root logger, so that what oslo.messaging, amqp or APScheduler
say comes out in the same form: text on a terminal, one JSON object a line elsewhere, each line with the journal's
priority in front when systemd's journal is listening. Everything goes to standard error; standard output belongs to
the commands.

Last of all, each finished line is searched for what must never be in it: passwords in URLs and webhook secrets. That
is a net under the trapeze, not a licence: no caller logs a secret or, at INFO, the payload of a notification.

It does not rotate, ship or file logs; the journal does. Threads do not inherit structlog's context variables, so
whoever starts a thread binds in it what its lines should carry.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_SECRETS = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/'\"]*@|whsec_[A-Za-z0-9+/=_-]+")

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

# At import already: structlog's own default would print to standard output, which belongs to the commands.
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, *_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    wrapper_class=structlog.stdlib.BoundLogger,
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=False,
)

_JOURNAL = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; `name` is its `__name__`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def configure(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> None:
    """Set logging up for the whole process; a second call replaces the first.

    `level` and `form` are the options log_level and log_format; `stream` is standard error if not given. Libraries
    speak from WARNING on, from INFO on when `level` is debug: at DEBUG some of them print payloads and tokens.
    """
    out = sys.stderr if stream is None else stream
    as_text = form == "text" or (form == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        _Formatter(
            for_journal=_is_journal(out),
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_text(colours=out.isatty()) if as_text else _json()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    libraries = {"debug": logging.INFO, "error": logging.ERROR}
    root.setLevel(libraries.get(level, logging.WARNING))
    logging.getLogger("maintd").setLevel(_LEVELS[level])
    logging.captureWarnings(True)
    threading.excepthook = _thread_died
    sys.excepthook = _process_died


def redact(text: str) -> str:
    """The text without passwords in URLs and without webhook secrets."""
    return _SECRETS.sub(lambda found: f"{found['scheme']}***@" if found["scheme"] else "whsec_***", text)


def _text(*, colours: bool) -> list[Processor]:
    return [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's formatter, and what can only be done to a finished line."""

    def __init__(self, *, for_journal: bool, **given: Any) -> None:
        super().__init__(**given)
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        line = redact(super().format(record))
        if not self._for_journal:
            return line
        priority = next((priority for least, priority in _JOURNAL if record.levelno >= least), 7)
        # Each physical line is an entry of its own to the journal.
        return "\n".join(f"<{priority}>{part}" for part in line.splitlines())


def _is_journal(out: TextIO) -> bool:
    """Whether a stream is the socket that systemd gave us, as $JOURNAL_STREAM (device:inode) says."""
    try:
        told = os.fstat(out.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{told.st_dev}:{told.st_ino}"


def _process_died(kind: type[BaseException], wrong: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    get_logger("maintd").critical("crashed", exc_info=(kind, wrong, trace))


def _thread_died(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is None or isinstance(told.exc_value, SystemExit):
        return
    name = told.thread.name if told.thread else None
    get_logger("maintd").critical(
        "thread_crashed", thread=name, exc_info=(told.exc_type, told.exc_value, told.exc_traceback)
    )
