"""``python -m ingest``: the collector apart, in ``MIDSTREAM_WEB_WORKERS`` processes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from midstream.settings import Settings
from midstream.web import make_or_exit, serve

if TYPE_CHECKING:
    from ingest.app import App


def create_application() -> App:
    """Make the application of one worker process. Called by uvicorn."""
    return make_or_exit("collector", _create_application)


def _create_application(settings: Settings) -> App:
    from ingest.app import create_app

    return create_app(settings)


def main() -> int:
    """Serve until SIGTERM or SIGINT; exit code 1 when it cannot begin."""
    return serve("collector", "ingest.__main__:create_application")


if __name__ == "__main__":
    sys.exit(main())
