"""The base URL on one machine: collector and api as one ASGI application in several worker processes.

``python -m deploy.local.web``. A request is dispatched by its path before any framework sees it, so the telemetry
endpoint costs nothing of the api's.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from midstream.mmdb import check_ip_locations
from midstream.settings import Settings
from midstream.web import make_or_exit, serve

if TYPE_CHECKING:
    from ingest.app import Collector


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
    """Make the application of one worker process. Called by uvicorn."""
    return make_or_exit("web", _create_application)


def _create_application(settings: Settings) -> Application:
    from ingest.app import Collector
    from serve.app import create_app

    collector = Collector(settings)
    api = create_app(settings, accepting=collector.accepting)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        await collector.startup()
        try:
            async with api.router.lifespan_context(api):
                yield
        finally:
            await collector.shutdown()

    return Application(collector, api, Router(lifespan=lifespan))


def main() -> int:
    """Serve until SIGTERM or SIGINT; exit code 1 when it cannot begin."""
    return serve("web", "deploy.local.web:create_application", lambda found: check_ip_locations(found.ip_locations))


if __name__ == "__main__":
    sys.exit(main())
