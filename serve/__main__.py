"""``python -m serve``: the api apart, in ``MIDSTREAM_WEB_WORKERS`` processes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from midstream.mmdb import check_ip_locations
from midstream.settings import Settings
from midstream.web import make_or_exit, serve

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_application() -> FastAPI:
    """Make the application of one worker process. Called by uvicorn."""
    return make_or_exit("api", _create_application)


def _create_application(settings: Settings) -> FastAPI:
    from serve.app import create_app

    return create_app(settings)


def main() -> int:
    """Serve until SIGTERM or SIGINT; exit code 1 when it cannot begin."""
    return serve("api", "serve.__main__:create_application", lambda found: check_ip_locations(found.ip_locations))


if __name__ == "__main__":
    sys.exit(main())
