"""Sends a load from a process of its own, so that its CPU time is nobody else's: ``python -m bench.sender``.

Reads a :class:`Plan` as one line of JSON from standard input, prepares its batches, says ``ready``, waits for another
line, sends, and says as one line of JSON what became of every batch (:class:`Sent`). It keeps the ledger by which the
counts of ClickHouse are judged. ``bench.load`` starts it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import count, cycle, islice
from typing import cast

import msgspec
import uvloop

from bench.mix import Batch, batches

_REPLY_TIMEOUT_S = 30.0
_PREPARED_EVENTS = 200_000
_DEVICES = 10_000
_RETRY_STATUSES = (408, 429, 503)


class Plan(msgspec.Struct):
    """What to send and how."""

    port: int
    token: str
    seed: int
    events: int
    batch_events: int
    gzip: bool
    rate_events_s: float
    """0: as fast as it is taken."""
    connections: int
    retry_s: float
    """How long a batch that was refused waits, or one without an answer."""
    stored: list[str] = []
    """Texts of events that are stored already: what is resent is taken from them."""


class Sent(msgspec.Struct):
    """What became of it. ``fresh``, ``resent`` and ``invalid`` are of the events in batches that got a 2xx."""

    accepted_batches: int = 0
    accepted_events: int = 0
    fresh: int = 0
    resent: int = 0
    invalid: int = 0
    repeated_events: int = 0
    """Events of batches that may have been taken more than once, as no answer came to an earlier try."""
    refused: dict[int, int] = {}
    """Answers other than 2xx, by status."""
    without_retry_after: int = 0
    """Of the answers 503, those that do not say when to come again."""
    sending_s: float = 0.0
    cpu_s: float = 0.0
    reply_ms: list[float] = []
    """From the request to its 2xx, in milliseconds."""
    replies: dict[str, int] = {}
    """Epoch milliseconds of the 2xx by batch id."""


class _Connection(asyncio.Protocol):
    """One request at a time over HTTP/1.1, kept alive: no more than measuring needs."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._reply: asyncio.Future[tuple[int, str, bool]] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        self._read += data
        head_end = self._read.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._read[:head_end]).lower()
        length = int(_header(head, b"content-length") or b"0")
        if len(self._read) < head_end + 4 + length:
            return
        del self._read[: head_end + 4 + length]
        if self._reply is not None and not self._reply.done():
            batch_id, retry_after = _header(head, b"x-batch-id").decode(), _header(head, b"retry-after")
            self._reply.set_result((int(head[9:12]), batch_id, bool(retry_after)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionResetError("closed by the server"))

    @property
    def open(self) -> bool:
        """Whether a request can be sent: the server closes what is idle for long."""
        return self._transport is not None

    async def ask(self, request: bytes) -> tuple[int, str, bool]:
        """Send a request; return of the answer the status, the batch id, and whether it says when to come again.

        Raises:
            OSError, TimeoutError: no answer; the connection cannot be used any more.
        """
        if self._transport is None:
            raise ConnectionResetError("closed by the server")
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(_REPLY_TIMEOUT_S):
            return await self._reply

    def close(self) -> None:
        """Close it."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def _header(head: bytes, name: bytes) -> bytes:
    begin = head.find(b"\r\n" + name + b":")
    if begin < 0:
        return b""
    end = head.find(b"\r\n", begin + 2)
    return head[begin + len(name) + 3 : len(head) if end < 0 else end].strip()


def prepare(plan: Plan) -> Iterator[Batch]:
    """Return the plan's batches: those beyond the first many are these again under other mids."""
    if plan.stored and plan.events > _PREPARED_EVENTS:
        raise ValueError("renewed batches would hold none of the events that are stored")
    prepared, ets_ms = min(plan.events, _PREPARED_EVENTS), time.time_ns() // 1_000_000
    stored = [text.encode() for text in plan.stored]
    kept = list(batches(plan.seed, prepared, plan.batch_events, ets_ms, stored=stored))
    first = [batch.compressed() for batch in kept] if plan.gzip else kept

    def endless() -> Iterator[Batch]:
        yield from first
        for number in count(1):
            for batch in kept:
                renewed = batch.renewed(number)
                yield renewed.compressed() if plan.gzip else renewed

    return islice(endless(), plan.events // plan.batch_events)


class Sender:
    """Sends batches over a few connections and keeps the ledger."""

    def __init__(self, plan: Plan, waiting: Iterator[Batch]) -> None:
        self._plan = plan
        self._waiting = waiting
        self._sent_events = 0
        self.sent = Sent()
        self._took_ms: deque[float] = deque()
        self._head = (
            f"POST /v1/telemetry HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\nAuthorization: Bearer {plan.token}\r\n"
            f"Content-Type: application/json\r\n{'Content-Encoding: gzip' if plan.gzip else 'Accept: */*'}\r\n"
        ).encode()
        self._devices = cycle(b"X-Device-Id: bench-%d\r\n" % number for number in range(_DEVICES))

    async def run(self) -> None:
        """Send everything; a batch without a 2xx is sent again, as the SDK does."""
        self._began = time.monotonic()
        cpu_began = time.process_time()
        await asyncio.gather(*(self._work() for _ in range(self._plan.connections)))
        self.sent.sending_s = time.monotonic() - self._began
        self.sent.cpu_s = time.process_time() - cpu_began
        self.sent.reply_ms = list(self._took_ms)

    async def _work(self) -> None:
        connection = await self._connect()
        try:
            for batch in self._waiting:
                if self._plan.rate_events_s:
                    due = self._began + self._sent_events / self._plan.rate_events_s
                    self._sent_events += batch.events
                    await asyncio.sleep(max(due - time.monotonic(), 0))
                connection = await self._send(connection, batch)
        finally:
            connection.close()

    async def _connect(self) -> _Connection:
        async with asyncio.timeout(_REPLY_TIMEOUT_S):
            _, made = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._plan.port)
        return made

    async def _send(self, connection: _Connection, batch: Batch) -> _Connection:
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (
            self._head,
            next(self._devices),  # batches of one device are in order, in one partition of Kafka
            len(batch.body),
            batch.body,
        )
        sent, repeated = self.sent, False
        while True:
            if not connection.open:
                connection = await self._connect()
            began = time.monotonic()
            try:
                status, batch_id, has_retry_after = await connection.ask(request)
            except (OSError, TimeoutError):
                repeated = True
                connection.close()
                await asyncio.sleep(self._plan.retry_s)
                continue
            if 200 <= status < 300:
                break
            sent.refused[status] = sent.refused.get(status, 0) + 1
            sent.without_retry_after += status == 503 and not has_retry_after
            if status not in _RETRY_STATUSES:
                raise RuntimeError(f"the collector answers {status} to a batch of the mix")
            repeated = repeated or bool(batch_id)  # an answer 503 that names a batch: the outcome is not known
            await asyncio.sleep(self._plan.retry_s)
        self._took_ms.append((time.monotonic() - began) * 1000)
        sent.replies[batch_id] = time.time_ns() // 1_000_000
        sent.accepted_batches += 1
        sent.accepted_events += batch.events
        sent.fresh += batch.fresh
        sent.resent += batch.resent
        sent.invalid += batch.invalid
        if repeated:
            sent.repeated_events += batch.events
        return connection


def main() -> None:
    """Prepare, wait for the word, send, report."""
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    sender = Sender(plan, prepare(plan))
    print("ready", flush=True)
    if sys.stdin.readline():
        uvloop.run(sender.run())
        report = msgspec.json.encode(sender.sent) + b"\n"
        # print() under PYTHONUNBUFFERED drops what one write() does not take.
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            out.write(report)


if __name__ == "__main__":
    main()
