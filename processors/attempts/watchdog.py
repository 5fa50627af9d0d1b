"""Ends a worker that stands still in a step: its mark stays, and the next life counts it as a try of that record."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys

from midstream.logs import get_logger
from processors.attempts.table import Attempts

log = get_logger(__name__)

EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h

_LOOKS = 10


async def end_if_stuck(attempts: Attempts, timeout_s: float) -> None:
    """End the process, until cancelled, when the same record is under work for ``timeout_s``.

    What holds the interpreter's lock stops the looks at the marks too; then a thread that needs no lock ends the
    process in the same time. That thread goes by the clock, so that a process which was stopped for longer ends as well
    when it goes on: its lease is lost then anyway.
    """
    standing: dict[bytes, int] = {}
    try:
        while True:
            faulthandler.dump_traceback_later(timeout_s, exit=True)
            await asyncio.sleep(timeout_s / _LOOKS)
            standing = {mark: standing.get(mark, 0) + 1 for mark in attempts.marks()}
            if max(standing.values(), default=0) > _LOOKS:
                log.critical("record.stuck", after_s=timeout_s)
                faulthandler.dump_traceback(all_threads=True)
                logging.shutdown()
                sys.stderr.flush()
                os._exit(EXIT_STUCK)
    finally:
        faulthandler.cancel_dump_traceback_later()
