"""``python -m deploy.local.engine``: the local ClickHouse engine on 127.0.0.1, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from deploy.local.engine.app import EngineApp
from deploy.local.engine.broken import BrokenParts, tell_of_what_was_set_aside
from deploy.local.engine.database import Database, EngineStartError
from midstream.logs import configure_logs, get_logger
from midstream.settings import Settings, SettingsError, get_settings

HOST = "127.0.0.1"
_BACKLOG = 256
_KEEP_ALIVE_S = 75


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it with exit code 0, after the engine was closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _listen(port: int) -> socket.socket:
    """Take the port before anything slow happens; nobody is let in before the engine is there.

    Raises:
        EngineStartError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise EngineStartError(
            f"Port {port} of {HOST} {reason}. Stop what uses it, or set MIDSTREAM_LOCAL_CLICKHOUSE_PORT."
        ) from None
    return listener


def _serve(settings: Settings, database: Database, listener: socket.socket) -> None:
    config = uvicorn.Config(
        EngineApp(database, BrokenParts(database.path, lambda: os.kill(os.getpid(), signal.SIGTERM))),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, settings.drain_timeout_ms // 1000),
    )
    _Server(config).run(sockets=[listener])


def _quieten_uvicorn() -> None:
    """Its start and end are said here; a connection that was broken on purpose is in the query's line."""
    logger = logging.getLogger("uvicorn.error")
    logger.setLevel(logging.WARNING)
    logger.addFilter(lambda record: "without completing response" not in record.getMessage())


def main() -> int:
    """Run until told to stop; return the exit code."""
    try:
        settings = get_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    configure_logs(settings, "engine")
    _quieten_uvicorn()
    log = get_logger(__name__)
    database = Database(settings)
    try:
        listener = _listen(settings.local_clickhouse_port)
        database.open()
    except EngineStartError as error:
        log.error("engine.not_started", reason=str(error))
        return 1
    log.info(
        "engine.started",
        url=f"http://{HOST}:{settings.local_clickhouse_port}",
        folder=str(database.path),
        version=database.version,
    )
    tell_of_what_was_set_aside(database.broken_parts())
    _serve(settings, database, listener)
    if not database.close():
        log.warning("engine.killed", reason="a query did not end in time; what was acknowledged is stored")
        os._exit(0)
    log.info("engine.stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
