"""With Kafka away the collector goes on, and everything it answered 200 comes out of the spool when Kafka is back."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from ingest.spool.segment import DAMAGED, list_segments
from midstream.kafka.producer import RecordTooLarge
from midstream.receipt import encode_receipt
from midstream.registry.credentials import Issued
from midstream.settings import MIB, Settings

from .conftest import PATH, serving
from .doubles import NOT_PUBLISHED, OUTCOME_UNKNOWN, MemoryPublisher


def body_of(number: int, size: int = 10) -> bytes:
    return json.dumps({"params": {"did": f"d{number}"}, "events": [{"n": number, "x": "y" * size}]}).encode()


async def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  asks another party
            await asyncio.sleep(0.01)


async def post(client: httpx.AsyncClient, body: bytes) -> str:
    reply = await client.post(PATH, content=body)
    assert reply.status_code == 200, reply.text
    return str(reply.headers["x-batch-id"])


def metric(name: str) -> float:
    return REGISTRY.get_sample_value(f"midstream_{name}") or 0.0


def slot_of(settings: Settings) -> Path:
    return settings.spool_folder / "0"


async def test_batches_come_out_in_order_byte_for_byte_numbered_without_a_gap(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    before = {name: metric(name) for name in ("spooled_batches_total", "spool_drained_batches_total")}
    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        bodies = [body_of(number) for number in range(30)]
        ids = [await post(client, body) for body in bodies]
        assert publisher.drained == []
        await wait_until(lambda: metric("spool_batches") == 30)
        assert metric("spool_bytes") == sum(one.size for one in list_segments(slot_of(settings)))
        assert 0 < metric("spool_oldest_age_seconds") < 20
        publisher.ready = True
        live = await post(client, body_of(99))
        await wait_until(lambda: len(publisher.drained) == 30)
        await wait_until(lambda: not list_segments(slot_of(settings)))
        await wait_until(lambda: metric("spool_batches") == 0)
        assert (metric("spool_bytes"), metric("spool_oldest_age_seconds")) == (0, 0)
    assert [(receipt.batch_id, body, key) for receipt, body, key in publisher.drained] == [
        (id_, body, f"d{number}".encode()) for number, (id_, body) in enumerate(zip(ids, bodies, strict=True))
    ]
    receipts = [receipt for receipt, _, _ in publisher.drained]
    assert [receipt.sequence for receipt in receipts] == list(range(30))
    assert {receipt.source for receipt in receipts} == {"spool"}
    [collector] = {receipt.collector for receipt in receipts}
    assert collector.endswith("/spool")
    assert publisher.headers == [encode_receipt(receipt) for receipt in receipts]
    assert [receipt.batch_id for receipt, _, _ in publisher.published] == [live]
    assert metric("spooled_batches_total") - before["spooled_batches_total"] == 30
    assert metric("spool_drained_batches_total") - before["spool_drained_batches_total"] == 30


async def test_unknown_outcome_is_kept_under_the_same_receipt(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    async with serving(settings, publisher, app_credential.token) as client:
        await post(client, body_of(0))
        publisher.fault = OUTCOME_UNKNOWN
        id_ = await post(client, body_of(1))
        await wait_until(lambda: len(publisher.drained) == 1)
        publisher.fault = None
    _, (handed_over, body, key) = publisher.published
    copy = publisher.drained[0][0]
    assert (copy.batch_id, copy.collector, copy.sequence) == (id_, "memory", 1)
    assert (copy.source, handed_over.source) == ("spool", "http")
    assert encode_receipt(copy).replace(b'"spool"', b'"http"') == encode_receipt(handed_over)
    assert publisher.drained[0][1:] == (body, key)


async def test_not_published_goes_to_the_spool(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    async with serving(settings, publisher, app_credential.token) as client:
        publisher.fault = NOT_PUBLISHED
        id_ = await post(client, body_of(1))
        await wait_until(lambda: [receipt.batch_id for receipt, _, _ in publisher.drained] == [id_])
    assert publisher.drained[0][0].sequence == 0


async def test_full_spool_refuses_and_takes_again_once_drained(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    changed = settings.model_copy(update={"spool_max_bytes": 4 * MIB})
    before = metric("spool_refused_batches_total")
    async with serving(changed, publisher, app_credential.token) as client:
        publisher.ready = False
        body = body_of(1, 900_000)
        for _ in range(4):
            await post(client, body)
        for _ in range(2):
            reply = await client.post(PATH, content=body)
            assert (reply.status_code, reply.json()["params"]["err"]) == (503, "SPOOL_FULL")
            assert int(reply.headers["retry-after"]) > 0
            assert "x-batch-id" not in reply.headers
        # With Kafka there, live batches pass however full the spool is; a copy cannot be kept.
        publisher.acknowledges = False
        publisher.ready = True
        await post(client, body_of(2))
        publisher.fault = OUTCOME_UNKNOWN
        reply = await client.post(PATH, content=body)
        assert (reply.status_code, reply.json()["params"]["err"]) == (503, "OUTCOME_UNKNOWN")
        assert reply.headers["x-batch-id"] == publisher.published[-1][0].batch_id
        assert metric("spool_refused_batches_total") - before == 1
        publisher.fault = None
        publisher.ready = False
    publisher = MemoryPublisher()
    async with serving(changed, publisher, app_credential.token) as client:
        await wait_until(lambda: len(publisher.drained) == 4)
        await wait_until(lambda: not list_segments(slot_of(settings)))
        await wait_until(lambda: metric("spool_bytes") == 0)  # it is counted after it is deleted
        publisher.ready = False
        await post(client, body)
        publisher.ready = True


async def test_draining_is_bounded_and_starts_anew_when_kafka_goes_away_again(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    changed = settings.model_copy(update={"kafka_timeout_ms": 300})
    async with serving(changed, publisher, app_credential.token) as client:
        publisher.ready = False
        ids = [await post(client, body_of(number, 500_000)) for number in range(12)]
        publisher.acknowledges = False
        publisher.ready = True
        await wait_until(lambda: len(publisher.drained) > 0)
        await asyncio.sleep(0.2)
        assert sum(len(body) for _, body, _ in publisher.drained) <= 4 * MIB
        assert [receipt.batch_id for receipt, _, _ in publisher.drained] == ids[: len(publisher.drained)]
        await asyncio.sleep(1)  # nothing is acknowledged: no more is handed over, and nothing is deleted
        assert sum(len(body) for _, body, _ in publisher.drained) <= 4 * MIB
        assert list_segments(slot_of(settings))
        publisher.ready = False
    publisher = MemoryPublisher()
    async with serving(changed, publisher, app_credential.token):
        await wait_until(lambda: [receipt.batch_id for receipt, _, _ in publisher.drained] == ids)


async def test_live_batches_are_not_held_up_by_a_long_spool(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        await asyncio.gather(*(post(client, body_of(number, 200_000)) for number in range(150)))
        publisher.ready = True
        began = time.monotonic()
        await post(client, body_of(1))
        assert time.monotonic() - began < 1
        await wait_until(lambda: len(publisher.drained) == 150)
        publisher.ready = False


async def test_damage_is_set_aside_and_the_rest_comes_out(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        ids = [await post(client, body_of(number)) for number in range(5)]
        [segment] = list_segments(slot_of(settings))
        data = bytearray(segment.path.read_bytes())
        data[data.index(ids[2].encode())] ^= 1
        segment.path.write_bytes(data)
        publisher.ready = True
        await wait_until(lambda: len(publisher.drained) == 4)
        await wait_until(lambda: not list_segments(slot_of(settings)))
    assert [receipt.batch_id for receipt, _, _ in publisher.drained] == [ids[i] for i in (0, 1, 3, 4)]
    [kept] = (slot_of(settings) / DAMAGED).iterdir()
    assert body_of(2) in kept.read_bytes()


class TestMarks:
    async def test_first_batch_waits_for_the_first_mark(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued
    ) -> None:
        changed = settings.model_copy(update={"kafka_timeout_ms": 200})
        publisher.acknowledges = False
        async with serving(changed, publisher, app_credential.token) as client:
            reply = await client.post(PATH, content=body_of(0))
            assert (reply.status_code, reply.json()["params"]["err"]) == (503, "KAFKA_UNAVAILABLE")
            assert publisher.marks[0].open

    async def test_a_slot_that_is_open_accepts_without_kafka(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued
    ) -> None:
        async with serving(settings, publisher, app_credential.token):
            publisher.ready = False  # so it cannot say that it closes
        away = MemoryPublisher(ready=False)
        async with serving(settings, away, app_credential.token) as client:
            id_ = await post(client, body_of(0))
        back = MemoryPublisher()
        async with serving(settings, back, app_credential.token):
            await wait_until(lambda: [receipt.batch_id for receipt, _, _ in back.drained] == [id_])
        assert {mark.id for mark in back.marks} == {publisher.marks[0].id}
        assert not back.marks[-1].open
        closed = MemoryPublisher(ready=False)
        async with serving(settings, closed, app_credential.token) as client:
            assert (await client.post(PATH, content=body_of(1))).status_code == 503

    async def test_low_is_held_back_by_what_waits_and_by_what_is_on_its_way(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued
    ) -> None:
        async with serving(settings, publisher, app_credential.token) as client:
            publisher.gate = asyncio.Event()
            waiting = asyncio.create_task(client.post(PATH, content=body_of(0)))
            await wait_until(lambda: len(publisher.published) == 1)
            received_at_ms = publisher.published[0][0].received_at_ms
            seen = len(publisher.marks)
            await wait_until(lambda: len(publisher.marks) >= seen + 2)
            assert {mark.low_ms for mark in publisher.marks[seen:]} == {received_at_ms}
            publisher.gate.set()
            assert (await waiting).status_code == 200
            seen = len(publisher.marks)
            await wait_until(lambda: len(publisher.marks) >= seen + 2)
            assert publisher.marks[-1].low_ms == publisher.marks[-1].at_ms > received_at_ms

    async def test_marks_promise_only_what_is_acknowledged(
        self, settings: Settings, publisher: MemoryPublisher, app_credential: Issued
    ) -> None:
        async with serving(settings, publisher, app_credential.token) as client:
            publisher.ready = False
            for number in range(3):
                await post(client, body_of(number))
            before_ms = time.time_ns() // 1_000_000
            seen = len(publisher.marks)
            await asyncio.sleep(0.1)
            publisher.acknowledges = True
            publisher.ready = True
            await wait_until(lambda: len(publisher.marks) > seen and publisher.marks[-1].spooled_batches == 0)
        first_ms = publisher.drained[0][0].received_at_ms
        for mark in publisher.marks[seen:]:
            if mark.spooled_batches:
                assert mark.low_ms == mark.oldest_ms == first_ms
                assert mark.spooled_bytes > 0
                assert mark.open
            else:
                assert mark.low_ms >= before_ms
                assert (mark.oldest_ms, mark.spooled_bytes) == (0, 0)
        assert publisher.marks[-1].open is False

    async def test_left_over_slots_are_drained_and_closed_by_others(
        self, settings: Settings, app_credential: Issued, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ingest.caretaker._LOOK_INTERVAL_S", 0.1)
        ids: set[str] = set()
        slots: set[str] = set()
        away = [MemoryPublisher() for _ in range(3)]
        async with (
            serving(settings, away[0], app_credential.token) as one,
            serving(settings, away[1], app_credential.token) as two,
            serving(settings, away[2], app_credential.token) as three,
        ):
            for publisher in away:
                publisher.ready = False
                slots |= {mark.id for mark in publisher.marks}
            for number, client in enumerate([one, two, three, one]):
                ids.add(await post(client, body_of(number)))
        assert len(slots) == 3
        last = MemoryPublisher()
        async with serving(settings, last, app_credential.token) as client:
            await wait_until(lambda: {receipt.batch_id for receipt, _, _ in last.drained} == ids)
            own = last.marks[0].id
            await wait_until(lambda: {mark.id for mark in last.marks if not mark.open} == slots - {own})
            closed = len(last.marks)
            await asyncio.sleep(1.2)
            assert {mark.id for mark in last.marks[closed:]} == {own}  # the others are left alone now
        assert len(last.drained) == 4
        final = {mark.id: mark for mark in last.marks}
        assert set(final) == slots
        assert not any(mark.open or mark.spooled_batches for mark in final.values())

    async def test_adopted_slots_are_given_back_when_kafka_goes_away(
        self, settings: Settings, app_credential: Issued, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ingest.caretaker._LOOK_INTERVAL_S", 0.1)
        first, second = MemoryPublisher(), MemoryPublisher()
        async with (
            serving(settings, first, app_credential.token),
            serving(settings, second, app_credential.token) as client,
        ):
            first.ready = second.ready = False
            await post(client, body_of(0))
        slow = settings.model_copy(update={"kafka_timeout_ms": 60_000})
        adopter = MemoryPublisher()
        async with serving(slow, adopter, app_credential.token):
            adopter.acknowledges = False
            await wait_until(lambda: len(adopter.drained) == 1)
            other = MemoryPublisher(ready=False)
            async with serving(settings, other, app_credential.token) as client:
                reply = await client.post(PATH, content=body_of(1))  # a new slot, and Kafka away
                assert reply.status_code == 503
            adopter.ready = False
        other = MemoryPublisher(ready=False)
        async with (
            serving(settings, MemoryPublisher(ready=False), app_credential.token),
            serving(settings, other, app_credential.token) as client,
        ):
            await post(client, body_of(2))


async def test_stop_drains_and_closes(settings: Settings, publisher: MemoryPublisher, app_credential: Issued) -> None:
    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        await post(client, body_of(0))
        publisher.ready = True
    assert len(publisher.drained) == 1
    assert not list_segments(slot_of(settings))
    assert publisher.marks[-1].open is False
    state: dict[str, Any] = json.loads((slot_of(settings) / "state.json").read_bytes())
    assert state == {"id": publisher.marks[-1].id, "open": False, "settled": True}


async def test_what_the_producer_never_takes_is_too_large(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued
) -> None:
    publisher.fault = RecordTooLarge("a record of 9000000 bytes")
    async with serving(settings, publisher, app_credential.token) as client:
        reply = await client.post(PATH, content=body_of(1))
        assert (reply.status_code, reply.json()["params"]["err"]) == (413, "BODY_TOO_LARGE")
        assert list_segments(slot_of(settings)) == []  # it would come out of the spool no better
        publisher.fault = None
        await post(client, body_of(2))
