"""``python -m serve.jobs``: run jobs until told to stop.

A job that this process has when it is told to stop is given back where that is safe. What it is doing may take longer
than it is waited for: then the lease runs out, and the job is another's after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from midstream.kafka.access import require_access_at_start
from midstream.logs import configure_logs, get_logger
from midstream.metrics import FATAL_ERRORS
from midstream.probes import Heartbeat, serve_probes
from midstream.registry.errors import RegistryError
from midstream.settings import Settings, SettingsError, get_settings
from midstream.without_pandas import do_without_pandas

if TYPE_CHECKING:
    from serve.jobs.recheck import Recheck

EXIT_CRASH = 70  # EX_SOFTWARE of sysexits.h
EXIT_CONFIG = 78  # EX_CONFIG

STOP_S = 12.0
"""How long the job under way is waited for at a stop."""

RECHECK_S = 86_400.0
RECHECK_AGAIN_S = 60.0

_log = get_logger("serve.jobs")


async def serve(settings: Settings, heartbeat: Heartbeat) -> None:
    """Run jobs until SIGTERM or SIGINT; whatever a job does not answer is raised."""
    from serve.facts.measured import measured
    from serve.jobs.opened import open_runner

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with open_runner(settings) as (runner, recheck), measured(settings):
        rechecking = asyncio.create_task(_recheck(recheck), name="recheck")
        running = asyncio.create_task(runner.run(), name="jobs")
        told = asyncio.create_task(stopping.wait(), name="until-stop")
        beating = asyncio.create_task(heartbeat.beat(), name="heartbeat")
        _log.info("jobs.started")
        await asyncio.wait((running, rechecking, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        beating.cancel()
        rechecking.cancel()
        if not running.done():
            runner.stop()
            await asyncio.wait((running,), timeout=STOP_S)
        if not running.done():
            _log.warning("jobs.stopped_in_the_middle", after_s=STOP_S)
            _end(0)  # a thread is at work, which nothing can stop
        running.result()
        with contextlib.suppress(asyncio.CancelledError):
            await rechecking
    _log.info("jobs.stopped")


async def _recheck(recheck: Recheck) -> None:
    """Look after erased users now and once a day; sooner where something did not answer."""
    while True:
        is_done = await recheck.look()
        await asyncio.sleep(RECHECK_S if is_done else RECHECK_AGAIN_S)


def main() -> None:
    """Serve; exit 0 when told to stop, 78 for wrong settings, 70 for any other error."""
    try:
        settings = get_settings()
    except SettingsError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_CONFIG)
    configure_logs(settings, "jobs")
    do_without_pandas()
    try:
        heartbeat = Heartbeat(settings)
        serve_probes(settings, settings.jobs_metrics_port, heartbeat)
    except OSError as error:
        _log.critical("metrics.port_unusable", port=settings.jobs_metrics_port, error=str(error))
        sys.exit(EXIT_CONFIG)
    if not require_access_at_start(settings):
        sys.exit(EXIT_CONFIG)
    try:
        asyncio.run(serve(settings, heartbeat))
    except RegistryError as error:
        _log.critical("jobs.registry_unusable", error=str(error))
        sys.exit(EXIT_CONFIG)
    except Exception as error:  # noqa: BLE001 - a process's top: log, count, exit
        FATAL_ERRORS.labels("jobs").inc()
        _log.critical("jobs.crashed", error=repr(error), exc_info=error)
        _end(EXIT_CRASH)


def _end(code: int) -> None:
    """End this process now, whatever its threads do."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
