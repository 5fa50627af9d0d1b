"""A client that behaves as the SDK does: it sends a batch again until it gets a 2xx, and keeps its own ledger."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from bench.mix import batches
from tests.chaos.ledger import Ledger, Sent

EVENTS = 20
"""Events of a batch."""

_FOREVER = 10**9
_REPLY_TIMEOUT_S = 15.0
_BACKOFF_S = 0.25
_MAX_RETRY_AFTER_S = 1.0
_POLL_S = 0.02
_TRY_AGAIN = frozenset({0, 408, 429, 500, 502, 503, 504})
"""Statuses (0: no reply) after which a batch is sent again. Another one is a fault of ours."""


class TrafficError(Exception):
    """The client could not send its batches."""


class Traffic:
    """Sends paced batches over some connections in a thread of its own, until told to finish.

    Counters may be read at any time, the ledger once :meth:`finish` has returned.
    """

    def __init__(self, port: int, token: str, seed: int, rate_events_s: float, *, connections: int = 16) -> None:
        self.ledger = Ledger()
        self.statuses: Counter[int] = Counter()
        """Replies by status, 0 for none."""
        self.acknowledged = 0
        """2xx so far."""
        self._port = port
        self._head = (
            f"POST /v1/telemetry HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"
            "content-type: application/json\r\n"
        ).encode()
        self._seed = seed
        self._rng = random.Random(f"traffic {seed}")
        self._rate = rate_events_s
        self._connections = connections
        self._kept: list[tuple[Sent, bytes]] = []
        self._least_events = 0
        self._give_up_at = float("inf")
        self._paused = False
        self._finishing = False
        self._abandoned = False
        self._under_way = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def sent(self) -> int:
        """Events of the batches taken up so far."""
        return len(self.ledger.batches) * EVENTS

    @property
    def refused(self) -> int:
        """Replies but 2xx so far, and requests without a reply."""
        return sum(times for status, times in self.statuses.copy().items() if not 200 <= status < 300)

    def pause(self, timeout_s: float = 60.0) -> None:
        """Take up no new batch, and wait until those under way have their 2xx."""
        self._paused = True
        self._wait(lambda: self._under_way == 0, timeout_s, "batches under way were not acknowledged")

    def resume(self) -> None:
        """Go on."""
        self._paused = False

    def resend(self, share: float, timeout_s: float = 120.0) -> int:
        """Send a random share of what was sent once more, in another order; return how many batches.

        Only while paused, or after :meth:`finish`.
        """
        chosen = self._rng.sample(self._kept, int(len(self.ledger.batches) * share))
        again = threading.Thread(target=self._run, args=(iter(chosen),), name="traffic-again", daemon=True)
        self._give_up_at = time.monotonic() + timeout_s
        again.start()
        again.join(timeout_s + _REPLY_TIMEOUT_S)
        self._give_up_at = float("inf")
        self._check()
        return len(chosen)

    def finish(self, least_events: int, timeout_s: float) -> None:
        """Send what is missing of ``least_events``, without pace; wait until each batch has its 2xx.

        Raises:
            TrafficError: not in time, or a batch was refused for good.
        """
        self._least_events = least_events
        self._give_up_at = time.monotonic() + timeout_s
        self._paused = False
        self._finishing = True
        self._thread.join(timeout_s + _REPLY_TIMEOUT_S)
        self._check()
        if self._thread.is_alive():
            raise TrafficError(f"not all batches were acknowledged in {timeout_s:.0f} s: replies {dict(self.statuses)}")
        self._give_up_at = float("inf")

    def abandon(self) -> None:
        """Stop sending, whatever is under way."""
        self._abandoned = True
        if self._thread.is_alive():
            self._thread.join(_REPLY_TIMEOUT_S)

    def _check(self) -> None:
        if self._error is not None:
            raise TrafficError(f"the client failed: {self._error!r}") from self._error

    def _wait(self, done: object, timeout_s: float, problem: str) -> None:
        assert callable(done)
        deadline = time.monotonic() + timeout_s
        while not done():
            self._check()
            if time.monotonic() > deadline:
                raise TrafficError(f"{problem} in {timeout_s:.0f} s: replies {dict(self.statuses)}")
            time.sleep(_POLL_S)

    def _run(self, source: Iterator[tuple[Sent, bytes]] | None = None) -> None:
        try:
            asyncio.run(self._send_all(source))
        except BaseException as error:  # noqa: BLE001 - a thread's top: told by _check
            self._error = error

    async def _send_all(self, source: Iterator[tuple[Sent, bytes]] | None) -> None:
        paced = source is None
        items = source if source is not None else self._make()
        began = time.monotonic()
        places = itertools.count()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._connections):
                group.create_task(self._send(items, places if paced else None, began))

    def _make(self) -> Iterator[tuple[Sent, bytes]]:
        ets_ms = time.time_ns() // 1_000_000
        for number, batch in enumerate(batches(self._seed, _FOREVER, EVENTS, ets_ms)):
            item = self.ledger.add(number, batch.body), batch.body
            self._kept.append(item)
            yield item

    async def _send(self, items: Iterator[tuple[Sent, bytes]], places: Iterator[int] | None, began: float) -> None:
        connection = _Connection(self._port)
        try:
            while places is None or await self._turn(places, began):
                item = next(items, None)
                if item is None:
                    return
                self._under_way += 1
                try:
                    await self._deliver(connection, *item)
                finally:
                    self._under_way -= 1
                if self._abandoned:
                    return
        finally:
            connection.close()

    async def _turn(self, places: Iterator[int], began: float) -> bool:
        """Wait until the next batch is due; False when there is none any more."""
        place: int | None = None
        while True:
            if self._abandoned or (self._finishing and self.sent >= self._least_events):
                return False
            if not self._paused:
                if self._finishing:
                    return True
                if place is None:
                    place = next(places)
                if time.monotonic() >= began + place * EVENTS / self._rate:
                    return True
            await asyncio.sleep(_POLL_S)

    async def _deliver(self, connection: _Connection, sent: Sent, body: bytes) -> None:
        request = b"%bx-device-id: d%d\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head,
            sent.number % 500,
            len(body),
            body,
        )
        while not self._abandoned:
            status, retry_after_s = await connection.post(request, sent)
            self.statuses[status] += 1
            if 200 <= status < 300:
                sent.acknowledged += 1
                self.acknowledged += 1
                return
            if status not in _TRY_AGAIN:
                raise TrafficError(f"batch {sent.msgid} was refused with {status}")
            if time.monotonic() > self._give_up_at:
                raise TrafficError(f"batch {sent.msgid} was not acknowledged: replies {dict(self.statuses)}")
            await asyncio.sleep(min(retry_after_s or _BACKOFF_S, _MAX_RETRY_AFTER_S) * (0.5 + self._rng.random()))


class _Connection:
    """One keep-alive connection, opened when needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, request: bytes, sent: Sent) -> tuple[int, float]:
        """Send a request; return the status, 0 when there is no reply, and Retry-After in seconds."""
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                sent.attempts += 1
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(_field(head, b"content-length") or 0))
        except (OSError, EOFError, TimeoutError):
            self.close()
            return 0, 0.0
        status = int(head[9:12])
        if status >= 300 or _field(head, b"connection") == b"close":
            self.close()
        retry_after = _field(head, b"retry-after")
        return status, float(retry_after) if retry_after.isdigit() else 0.0

    def close(self) -> None:
        """Close it; the next post opens another."""
        if self._streams is not None:
            with suppress(OSError):
                self._streams[1].transport.abort()
            self._streams = None


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key == name:
            return value.strip()
    return b""
