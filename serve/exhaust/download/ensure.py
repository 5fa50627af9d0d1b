"""Days that must be there before a request can be answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from midstream.clickhouse.client import ClickHouseError
from midstream.exhaust.manifest import DayFacts
from serve.assignments.refused import RefusedError
from serve.exhaust import refused
from serve.exhaust.asked import Asked
from serve.exhaust.closed import GoneError, NotClosedError
from serve.exhaust.days.follow import Cause, NotBuiltError
from serve.exhaust.days.prepare import BusyError
from serve.exhaust.envelope import INTERNAL, INVALID_DATE
from serve.services import Services


async def check_days(services: Services, asked: Asked) -> None:
    """Return if all days that are not built can be.

    Raises:
        RefusedError: 503 one is not closed, or it cannot be told now; 410 one is gone.
    """
    days = [job.day for job in asked.jobs if await services.exhaust.days.built(job) is None]
    if not days:
        return
    try:
        await services.exhaust.closed.check(days)
    except GoneError as error:
        raise refused.refused(410, INVALID_DATE, str(error), asked.msgid) from None
    except NotClosedError as error:
        raise refused.refused(503, INTERNAL, str(error), asked.msgid) from None
    except ClickHouseError:
        message = "the events cannot be read now: ClickHouse does not answer"
        raise refused.refused(503, INTERNAL, message, asked.msgid) from None


async def ensure_built(services: Services, asked: Asked) -> Sequence[DayFacts]:
    """Return the facts of all days once they are built; they are built on when that takes too long.

    Raises:
        RefusedError: see :func:`check_days`; 503 they take longer, 500 one cannot be built.
    """
    await check_days(services, asked)
    try:
        task = services.exhaust.preparing.begin(asked.jobs)
        await asyncio.wait((task,), timeout=services.settings.exhaust_wait_ms / 1000)
        if task.done():
            return task.result()
    except BusyError as error:
        raise refused.refused(503, INTERNAL, str(error), asked.msgid) from None
    except NotBuiltError as error:
        raise not_built(error, asked.msgid) from None
    message = f"the days {asked.period.first} to {asked.period.last} are being built"
    raise refused.refused(503, INTERNAL, message, asked.msgid)


def not_built(error: NotBuiltError, msgid: str) -> RefusedError:
    """Return the refusal of a request whose days could not be built."""
    status = 500 if error.cause is Cause.FAILED else 503
    return refused.refused(status, INTERNAL, str(error), msgid)
