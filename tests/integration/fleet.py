"""A fleet that sends as fast as the collector takes it: cheap to run, and with a ledger of what it sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.integration.outside import make_event, now_ms

EVENTS = 20
"""Events of a batch."""

INVALID_EVERY = 100
RESENT_EVERY = 50

_BACKOFF_S = 0.2
_REPLY_TIMEOUT_S = 30.0


Watch = Callable[["Fleet"], Coroutine[None, None, None]]
"""What runs beside a fleet while it sends; it ends soon after ``done``."""


@dataclass
class Ledger:
    """What the fleet knows. A mid is ``<channel>:<number>``; every number below ``mids`` was sent, each mid by 200 once
    at least."""

    channel: str
    mids: int
    acknowledged: int = 0
    """Batches with a 200."""
    attempts: int = 0
    """Batches handed to the network; those without a reply may have arrived or not."""
    statuses: dict[int, int] = field(default_factory=dict)
    """Replies by status, 0 for none."""
    resent: int = 0
    """Batches sent again although they had their 200."""

    @property
    def invalid(self) -> int:
        """Number of mids whose event is not valid."""
        return self.mids // INVALID_EVERY

    @property
    def valid(self) -> int:
        """Number of mids whose event is valid."""
        return self.mids - self.invalid


def is_invalid(number: int) -> bool:
    """Whether the event of this number is a bad one."""
    return number % INVALID_EVERY == INVALID_EVERY - 1


class Fleet:
    """Sends ``batches`` batches over some connections at once."""

    def __init__(self, base_url: str, token: str, channel: str, batches: int, connections: int = 16) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.ledger = Ledger(channel, batches * EVENTS)
        self._connections = connections
        self._head = (
            f"POST /v1/telemetry HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {token}\r\n"
            "content-type: application/json\r\n"
        ).encode()
        self._batches = batches
        self._texts = _texts(channel)
        self.sent = 0
        """Batches that have all their 200s."""
        self.done = False

    async def run(self, watch: Watch | None = None) -> Ledger:
        """Send everything; a batch without a 200 is sent again, the same bytes, as the clients in the field do."""
        numbers = iter(range(self._batches))
        async with asyncio.TaskGroup() as group:
            senders = [group.create_task(self._send_all(numbers)) for _ in range(self._connections)]
            watching = group.create_task(watch(self)) if watch is not None else None
            await asyncio.gather(*senders)
            self.done = True
            if watching is not None:
                await watching
        return self.ledger

    async def _send_all(self, numbers: Iterator[int]) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            for number in numbers:
                request = self._request(number)
                times = 2 if number % RESENT_EVERY == 0 else 1
                self.ledger.resent += times - 1
                while times:
                    try:
                        connection = connection or await asyncio.open_connection(self._host, self._port)
                        self.ledger.attempts += 1
                        status = await asyncio.wait_for(_exchange(*connection, request), _REPLY_TIMEOUT_S)
                    except (OSError, EOFError, TimeoutError):
                        status = 0
                    self.ledger.statuses[status] = self.ledger.statuses.get(status, 0) + 1
                    if status == 200:
                        self.ledger.acknowledged += 1
                        times -= 1
                    else:
                        _close(connection)
                        connection = None
                        await asyncio.sleep(_BACKOFF_S)
                self.sent += 1
        finally:
            _close(connection)

    def _request(self, number: int) -> bytes:
        first = number * EVENTS
        events = b",".join(
            self._texts[0 if is_invalid(n) else n % 4 + 1] % (now_ms(), n) for n in range(first, first + EVENTS)
        )
        body = b'{"id":"api.telemetry","ver":"3.0","params":{"did":"d%d"},"events":[%b]}' % (number % 500, events)
        return self._head + b"content-length: %d\r\n\r\n" % len(body) + body


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send a request and read its reply; return the status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.index(b"content-length:") + len(b"content-length:")
    await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
    return int(head[9:12])


def _close(connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if connection is not None:
        connection[1].close()


def _texts(channel: str) -> list[bytes]:
    """Return templates of events that take an ets and a number: a bad one, then four good ones."""
    bad = make_event("INTERACT", channel=channel)
    del bad["edata"]["id"]
    good = [make_event(eid, channel=channel) for eid in ("INTERACT", "ASSESS", "IMPRESSION", "LOG")]
    texts = []
    for event in (bad, *good):
        text = json.dumps(event | {"mid": "MID", "ets": "ETS"}).replace("%", "%%")
        texts.append(text.replace('"MID"', f'"{channel}:%d"').replace('"ETS"', "%d").encode())
    return texts
