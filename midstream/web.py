"""How a process serves HTTP at ``MIDSTREAM_HOST`` and ``MIDSTREAM_PORT``: the port, its worker processes, their end.

The parent binds the port, starts the workers and starts one anew that died; each worker has its own event loop,
producer and caches.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from midstream.heap import settle_heap
from midstream.kafka.access import require_access_at_start
from midstream.logs import configure_logs, get_logger
from midstream.settings import Settings, SettingsError, get_settings

_log = get_logger(__name__)

_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable by which prometheus_client knows where the processes of one address leave their metrics."""

_PARENT_CHECK_S = 1.0

A = TypeVar("A")


class BindError(Exception):
    """The port cannot be listened on; the message says what to do."""


def serve(name: str, application: str, check: Callable[[Settings], None] = lambda _: None) -> int:
    """Serve until SIGTERM or SIGINT; requests under way are finished first.

    Returns:
        The exit code: 1 when it cannot begin.

    Args:
        name: of the process, in logs.
        application: ``module:function`` that makes the ASGI application of one worker process, by
            :func:`make_or_exit`. Importing that module must not import prometheus_client, which chooses at its import
            where values live.
        check: looks at the settings before anything is started.
    """
    try:
        settings = get_settings()
        configure_logs(settings, name)
        check(settings)
        bound = bind(settings.host, settings.port)
        prepare_metrics_folder(settings, name)
    except (SettingsError, BindError) as error:
        print(f"midstream: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"midstream: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    if not require_access_at_start(settings):
        return 1
    config = server_config(settings, application)
    _log.info(f"{name}.listening", url=settings.base_url, workers=settings.web_workers)
    if settings.web_workers == 1:
        Server(config).run([bound])
        return 0
    workers = Multiprocess(config, sockets=[bound])
    workers.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in workers.processes) else 0


def make_or_exit(name: str, make: Callable[[Settings], A]) -> A:
    """Return the application of this worker process, as ``make`` makes it.

    A failure ends the parent too, and is the supervisor's to answer: uvicorn itself would start a worker that
    cannot begin again and again, without a pause.
    """
    try:
        settings = get_settings()
        configure_logs(settings, name)
        application = make(settings)
    except Exception:  # noqa: BLE001  a process's top
        _log.exception(f"{name}.start_failed")
        sys.exit(STARTUP_FAILURE)
    settle_heap()
    return application


@asynccontextmanager
async def ending_with_parent() -> AsyncIterator[None]:
    """End this worker when its parent is killed: it would hold the port, and nobody would start it anew."""
    watch = asyncio.create_task(_stop_with_parent(), name="parent-watch")
    try:
        yield
    finally:
        watch.cancel()


async def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:  # one worker: the process that serves is the supervised one
        return
    while parent.is_alive():  # noqa: ASYNC110  nothing tells when a parent dies
        await asyncio.sleep(_PARENT_CHECK_S)
    _log.warning("web.parent_gone")
    os.kill(os.getpid(), signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address.

    Raises:
        BindError: it cannot be bound.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
            # Another process may be bound to the same address until one of them listens.
            bound.listen(2048)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise BindError(
            f"cannot listen on {host} port {port}: {error.strerror or error}. "
            "Stop what uses it, or set MIDSTREAM_PORT (MIDSTREAM_HOST) to another."
        ) from None
    bound.set_inheritable(True)
    return bound


def prepare_metrics_folder(settings: Settings, name: str) -> None:
    """Name the folder through which the workers' metrics are added up, empty: counts begin with the process."""
    folder = settings.home / "run" / f"metrics-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[_METRICS_FOLDER] = str(folder)


def server_config(settings: Settings, application: str) -> Config:
    """Return how uvicorn serves the application that ``module:function`` makes."""
    return Config(
        application,
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.web_workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=settings.log_level == "debug",
        server_header=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips or None,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_ms / 1000),
    )
