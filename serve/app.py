"""The api as one ASGI application: the read and control side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from midstream.settings import Settings
from midstream.web import ending_with_parent
from serve import admin, credentials, dimensions, status, trace, validate
from serve.assignments import records, reports
from serve.devices import fetched, files, register
from serve.errors import install_error_handlers
from serve.exhaust.download import routes as downloads
from serve.exhaust.requests import routes as requests
from serve.fleet import devices, models, state, stream
from serve.openapi import DESCRIPTION, install_docs
from serve.register import routes as device_register
from serve.request_ids import RequestIds
from serve.services import Services
from serve.stopping import told_to_stop
from serve.sync import routes as sync
from serve.wiring import open_services


class _Api(FastAPI):
    """The framework's application with :class:`RequestIds` around all of it."""

    def build_middleware_stack(self) -> ASGIApp:
        """Wrap what the framework makes, its own reply to a failure included."""
        return RequestIds(super().build_middleware_stack())


def create_app(
    settings: Settings,
    *,
    services: Services | None = None,
    accepting: Callable[[], bool] | None = None,
) -> FastAPI:
    """Make the application.

    Args:
        settings: the settings of this process.
        services: what the routes call; made at start-up and closed at shutdown when not given.
        accepting: whether a batch posted now would be durable, as the collector of this process sees it; None
            without one.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with ending_with_parent(), open_services(settings, accepting) as opened:
            app.state.services = opened
            with told_to_stop(opened.stopping):
                yield

    app = _Api(
        title="Midstream",
        version="1",
        description=DESCRIPTION,
        docs_url=None,  # our own page: FastAPI's loads Swagger UI from another host
        redoc_url=None,
        lifespan=lifespan if services is None else None,
    )
    if services is not None:
        app.state.services = services
    install_error_handlers(app)
    telemetry = (validate, trace, dimensions, sync, device_register)
    fleet = (register, fetched, files, devices, state, stream, models)
    assignments = (records, reports)
    exhaust = (downloads, requests)
    routers = [module.router for module in (*telemetry, *fleet, *assignments, *exhaust, credentials, admin, status)]
    for router in routers:
        app.include_router(router)
    install_docs(app, routers)
    return app
