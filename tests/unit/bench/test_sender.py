"""The sender's ledger, against a server that takes, refuses and breaks off."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from bench.mix import batches
from bench.sender import Plan, Sender, Sent, prepare

Answer = Callable[[int], bytes | None]
"""Of the number of the request: the whole answer, or None to break off."""


def reply(status: int, batch_id: str = "", retry_after: str = "1") -> bytes:
    header = f"X-Batch-Id: {batch_id}\r\n" if batch_id else ""
    header += f"Retry-After: {retry_after}\r\n" if status == 503 and retry_after else ""
    return f"HTTP/1.1 {status} x\r\n{header}Content-Length: 2\r\n\r\nok".encode()


class Server:
    def __init__(self, answer: Answer) -> None:
        self.bodies: list[bytes] = []
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                answer = self._answer(len(self.bodies))
                if answer is None:
                    return
                writer.write(answer[:20])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(answer[20:])
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[Server, int]]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    async with listener:
        yield server, listener.sockets[0].getsockname()[1]


def plan(port: int = 0, events: int = 200, **more: object) -> Plan:
    given = {"token": "t", "seed": 5, "batch_events": 20, "gzip": False, "rate_events_s": 0.0, "connections": 1}
    given["retry_s"] = 0.05
    return Plan(**{"port": port, "events": events, **given, **more})  # type: ignore[arg-type]


async def send(answer: Answer, **more: object) -> tuple[Sent, Server]:
    async with serving(answer) as (server, port):
        told = plan(port, **more)  # type: ignore[arg-type]
        sender = Sender(told, prepare(told))
        await sender.run()
    return sender.sent, server


async def test_each_batch_that_was_taken_is_in_the_ledger_once() -> None:
    sent, server = await send(lambda n: reply(200, f"b{n}"), connections=4)
    mix = list(batches(5, 200, 20, 0))
    assert (sent.accepted_batches, sent.accepted_events) == (10, 200)
    assert (sent.fresh, sent.resent, sent.invalid) == (
        sum(b.fresh for b in mix),
        sum(b.resent for b in mix),
        sum(b.invalid for b in mix),
    )
    assert set(sent.replies) == {f"b{n}" for n in range(1, 11)}
    assert len(sent.reply_ms) == 10
    assert (sent.repeated_events, sent.refused) == (0, {})
    assert len(server.bodies) == 10


async def test_a_refused_batch_is_sent_again_and_counted_once() -> None:
    sent, server = await send(lambda n: reply(503) if n == 3 else reply(200, f"b{n}"))
    assert sent.accepted_events == 200
    assert (sent.refused, sent.without_retry_after) == ({503: 1}, 0)
    assert sent.repeated_events == 0
    assert server.bodies[2] == server.bodies[3]


async def test_a_refusal_that_names_no_time_to_come_again_is_noted() -> None:
    sent, _ = await send(lambda n: reply(503, retry_after="") if n < 3 else reply(200, f"b{n}"))
    assert (sent.refused, sent.without_retry_after) == ({503: 2}, 2)


async def test_a_batch_of_unknown_outcome_is_sent_again_and_noted_as_such() -> None:
    sent, _ = await send(lambda n: reply(503, "known") if n == 1 else reply(200, f"b{n}"))
    assert sent.repeated_events == 20
    sent, server = await send(lambda n: None if n == 2 else reply(200, f"b{n}"))
    assert sent.repeated_events == 20
    assert sent.accepted_events == 200
    assert server.bodies[1] == server.bodies[2]


async def test_a_status_that_no_batch_of_the_mix_deserves_ends_the_sending() -> None:
    with pytest.raises(RuntimeError, match="413"):
        await send(lambda n: reply(413))


async def test_the_rate_is_kept() -> None:
    sent, _ = await send(lambda n: reply(200, f"b{n}"), rate_events_s=400.0)
    assert sent.sending_s >= 180 / 400


def mids(bodies: list[bytes]) -> list[str]:
    return [event["mid"] for body in bodies for event in orjson.loads(body)["events"]]


def test_renewed_batches_have_other_mids_and_the_same_resends() -> None:
    first = list(batches(5, 2_000, 20, 0))
    again = [batch.renewed(1) for batch in first]
    before, after = mids([b.body for b in first]), mids([b.body for b in again])
    assert not set(before) & set(after)
    assert len(set(before)) == len(set(after)) < len(before)
    assert [len(b.body) for b in first] == [len(b.body) for b in again]


def test_gzip_holds_the_same_bytes() -> None:
    plain, packed = list(prepare(plan())), list(prepare(plan(gzip=True)))

    def without_times(body: bytes) -> list[str]:
        return mids([body])

    assert [without_times(b.body) for b in plain] == [without_times(gzip.decompress(b.body)) for b in packed]


def test_what_is_resent_is_taken_from_what_is_stored() -> None:
    stored = ['{"mid":"INTERACT:old"}']
    bodies = [batch.body for batch in prepare(plan(events=2_000, stored=stored))]
    resent = sum(batch.resent for batch in prepare(plan(events=2_000, stored=stored)))
    assert mids(bodies).count("INTERACT:old") == resent > 0
    assert len(set(mids(bodies))) == 2_000 - resent + 1
