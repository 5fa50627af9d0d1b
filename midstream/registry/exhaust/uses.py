"""When licences were last used: written beside the requests, which neither wait for it nor fail with it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from sqlalchemy import or_, update

from midstream.logs import get_logger
from midstream.registry.engine import open_engine, unavailable_as_such
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.exhaust.tables import Licence
from midstream.settings import Settings

_log = get_logger(__name__)

_EVERY_S = 60.0
_TIMEOUT_MS = 2_000
_MAX_REMEMBERED = 10_000
_MAX_WAITING = 100


class Uses:
    """Writes one licence's last use at most once a minute, whatever the number of processes."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, wait_ms=_TIMEOUT_MS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="licence-uses")
        self._noted: OrderedDict[int, float] = OrderedDict()
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)

    def close(self) -> None:
        """Close the connection; what was not begun is not written."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    def note(self, licence_id: int) -> None:
        """Have the last use of a licence written, unless it was within the minute. Never waits, never raises."""
        now = time.monotonic()
        noted = self._noted.get(licence_id)
        if noted is not None and now - noted < _EVERY_S:
            return
        if not self._waiting.acquire(blocking=False):
            return  # the next request notes it
        try:
            self._thread.submit(self._write, licence_id, datetime.now(UTC)).add_done_callback(
                lambda _: self._waiting.release()
            )
        except RuntimeError:  # closed
            self._waiting.release()
            return
        self._noted[licence_id] = now
        self._noted.move_to_end(licence_id)
        if len(self._noted) > _MAX_REMEMBERED:
            self._noted.popitem(last=False)

    def _write(self, licence_id: int, at: datetime) -> None:
        older = or_(Licence.last_used_at.is_(None), Licence.last_used_at <= at - timedelta(seconds=_EVERY_S))
        statement = update(Licence).where(Licence.id == licence_id, older).values(last_used_at=at)
        try:
            with unavailable_as_such(), self._engine.begin() as connection:
                connection.execute(statement)
        except RegistryUnavailable as error:
            _log.warning("licence.use_not_written", licence=licence_id, reason=str(error))
