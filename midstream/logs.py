"""Structured logs: one line for one thing, to stderr, as text or JSON."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlsplit

import structlog

from midstream.request_ids import add_request_id
from midstream.secret_files import unknown_variables
from midstream.settings import Settings

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""But tab and line feed, which tracebacks have, and which the renderer quotes elsewhere."""


def configure_logs(settings: Settings, process: str) -> None:
    """Set up structlog and the standard library's logging of this process alike."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        add_request_id,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [_escape_controls, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Libraries are heard from warning on, unless debugging.
    for name in ("aiokafka", "faust", "mode", "uvicorn.access", "httpx", "urllib3", "alembic"):
        logging.getLogger(name).setLevel(level if settings.log_level == "debug" else logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)  # its lines hold headers, and these may hold secrets
    logging.getLogger("uvicorn.access").filters[:] = [_without_query]
    logging.getLogger("httpx").filters[:] = [_without_path]
    structlog.contextvars.bind_contextvars(process=process)
    for name, meant in unknown_variables(Settings.model_fields, os.environ).items():
        get_logger(__name__).warning("settings.unknown_variable", variable=name, meant=meant or None)


def _escape_controls(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what a client sent, such as a path, from steering the terminal of whoever reads the log."""
    for name, value in line.items():
        if isinstance(value, str) and not value.isprintable():
            line[name] = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return line


def _without_query(record: logging.LogRecord) -> bool:
    """Leave the query out of a line about a request: it may hold a signed link's token."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, path, version, status = record.args
        record.args = (client, method, str(path).partition("?")[0], version, status)
    return True


def _without_path(record: logging.LogRecord) -> bool:
    """Leave of the address only the host in a line about a request of our own: the rest may hold a secret."""
    if isinstance(record.args, tuple) and len(record.args) == 5:
        method, url, *answer = record.args
        record.args = (method, f"{urlsplit(str(url)).scheme}://{urlsplit(str(url)).hostname}", *answer)
    return True


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; ``log.info("what.happened", key=value)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
