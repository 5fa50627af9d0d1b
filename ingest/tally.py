"""What requests add up to. Metrics are told a few times a second: telling one costs more than counting a request."""

from __future__ import annotations

import asyncio

from prometheus_client import Counter

from ingest.backlog import Backlog, Refusals
from ingest.limits import BytesInFlight, RequestsInFlight
from midstream.metrics import (
    BACKLOG_BATCHES,
    BACKLOG_LIMIT_BATCHES,
    IN_FLIGHT_REQUESTS,
    RECEIVED_BATCHES,
    RECEIVED_BYTES,
    RECEIVED_EVENTS,
    REQUESTS,
    WAITING_REFUSALS,
)

_INTERVAL_S = 0.1


class Tally:
    """Counts what happens between two tellings. Belongs to one event loop; does nothing while there are no requests."""

    def __init__(
        self, requests: RequestsInFlight, in_flight: BytesInFlight, backlog: Backlog, refusals: Refusals
    ) -> None:
        self._requests = requests
        self._backlog = backlog
        self._refusals = refusals
        self._in_flight = in_flight
        self._replies: dict[int, int] = {}
        self._batches = self._events = self._bytes = 0
        self._counters: dict[int, Counter] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """See to it that what happens from now on is told."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL_S, self.tell)

    def reply(self, status: int) -> None:
        """Count a request that ended with ``status``."""
        self._replies[status] = self._replies.get(status, 0) + 1
        self.begin()

    def receive(self, events: int, size: int) -> None:
        """Count a batch that was made durable: its events, its bytes as sent."""
        self._batches += 1
        self._events += events
        self._bytes += size

    def tell(self) -> None:
        """Tell the metrics."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for status, count in self._replies.items():
            counter = self._counters.get(status)
            if counter is None:
                counter = self._counters[status] = REQUESTS.labels(str(int(status)))
            counter.inc(count)
        self._replies.clear()
        if self._batches:
            RECEIVED_BATCHES.inc(self._batches)
            RECEIVED_EVENTS.inc(self._events)
            RECEIVED_BYTES.inc(self._bytes)
            self._batches = self._events = self._bytes = 0
        IN_FLIGHT_REQUESTS.set(self._requests.under_way)
        BACKLOG_BATCHES.set(self._backlog.waiting)
        BACKLOG_LIMIT_BATCHES.set(self._backlog.limit)
        WAITING_REFUSALS.set(self._refusals.waiting)
        self._in_flight.tell()
