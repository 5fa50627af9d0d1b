"""The base URL on one machine: collector and api as one ASGI application in several worker processes.

``python -m deploy.local.web``. The parent binds the port, starts the workers and starts one anew that died; each worker
has its own event loop, producer and caches. A request is dispatched by its path before any framework sees it, so the
telemetry endpoint costs nothing of the api's.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from midstream.heap import settle_heap
from midstream.logs import configure_logs, get_logger
from midstream.mmdb import check_ip_locations
from midstream.settings import Settings, SettingsError, get_settings

if TYPE_CHECKING:
    from ingest.app import Collector

_log = get_logger(__name__)

_PARENT_CHECK_S = 1.0
_METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class BindError(Exception):
    """The port cannot be listened on; the message says what to do."""


class Application:
    """Collector and api behind one address."""

    def __init__(self, collector: Collector, api: ASGIApp, lifespan: Router) -> None:
        self._is_collectors = collector.handles
        self._collector = cast(ASGIApp, collector)  # it says dict where Starlette's types say mapping
        self._api = api
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the process's start and stop."""
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
        elif self._is_collectors(scope["path"]):
            await self._collector(scope, receive, send)
        else:
            await self._api(scope, receive, send)


def create_application() -> Application:
    """Make the application of one worker process. Called by uvicorn.

    A failure ends the parent too, and is the supervisor's to answer: uvicorn itself would start a worker that
    cannot begin again and again, without a pause.
    """
    try:
        application = _create_application()
    except Exception:  # noqa: BLE001  a process's top
        _log.exception("web.start_failed")
        sys.exit(STARTUP_FAILURE)
    settle_heap()
    return application


def _create_application() -> Application:
    # prometheus_client chooses where values live when it is first imported; in the parent, which imports this module
    # too, that would be before the folder is named.
    from ingest.app import Collector
    from serve.app import create_app

    settings = get_settings()
    configure_logs(settings, "web")
    collector = Collector(settings)
    api = create_app(settings, accepting=collector.accepting)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        watch = asyncio.create_task(_stop_with_parent(), name="parent-watch")
        await collector.startup()
        try:
            async with api.router.lifespan_context(api):
                yield
        finally:
            watch.cancel()
            await collector.shutdown()

    return Application(collector, api, Router(lifespan=lifespan))


async def _stop_with_parent() -> None:
    """End this worker when its parent was killed: it would hold the port, and nobody would start it anew."""
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


def prepare_metrics_folder(settings: Settings) -> None:
    """Name the folder through which the workers' metrics are added up, empty: counts begin with the process."""
    folder = settings.home / "run" / "metrics-web"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[_METRICS_FOLDER] = str(folder)


def server_config(settings: Settings) -> Config:
    """Return how uvicorn serves."""
    return Config(
        "deploy.local.web:create_application",
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


def main() -> int:
    """Serve until SIGTERM or SIGINT; exit code 1 when it cannot begin."""
    try:
        settings = get_settings()
        configure_logs(settings, "web")
        check_ip_locations(settings.ip_locations)
        bound = bind(settings.host, settings.port)
        prepare_metrics_folder(settings)
    except (SettingsError, BindError) as error:
        print(f"midstream: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"midstream: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    config = server_config(settings)
    _log.info("web.listening", url=settings.base_url, workers=settings.web_workers)
    if settings.web_workers == 1:
        Server(config).run([bound])
        return 0
    workers = Multiprocess(config, sockets=[bound])
    workers.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in workers.processes) else 0


if __name__ == "__main__":
    sys.exit(main())
