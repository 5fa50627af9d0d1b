"""``python -m ingest``: the collector apart, in ``MIDSTREAM_WEB_WORKERS`` processes."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from typing import Any

from midstream.settings import Settings, SettingsError, get_settings


def make_app() -> Any:
    """Make the application of one worker process."""
    from ingest.app import create_app
    from midstream.heap import settle_heap
    from midstream.logs import configure_logs

    settings = get_settings()
    configure_logs(settings, "collector")
    app = create_app(settings)
    settle_heap()
    return app


def main() -> int:
    """Serve until a signal; requests under way are finished first."""
    try:
        settings = get_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    folder = None
    if settings.web_workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        # Before prometheus_client is imported: it chooses then where its values live.
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="midstream-collector-metrics-")
    try:
        _serve(settings)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


def _serve(settings: Settings) -> None:
    import uvicorn

    uvicorn.run(
        "ingest.__main__:make_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.web_workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.forwarded_allow_ips),
        forwarded_allow_ips=settings.forwarded_allow_ips or None,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_ms / 1000),
    )


if __name__ == "__main__":
    sys.exit(main())
