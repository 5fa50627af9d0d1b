"""What the disk or Kafka will not do for one segment or one record does not keep back the others, and is told once."""

import asyncio
import errno
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from ingest.spool import drain
from ingest.spool.drain import Drainer
from ingest.spool.segment import DAMAGED, SegmentFile, list_segments, read_segment, set_aside
from ingest.spool.shelf import Shelf
from ingest.spool.spool import Spool
from midstream.receipt import Receipt
from midstream.registry.credentials import Issued
from midstream.settings import Settings

from .conftest import serving
from .doubles import MemoryPublisher
from .test_kafka_away import body_of, metric, post, slot_of, wait_until


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def told(log: list[Any], event: str) -> int:
    return sum(entry["event"] == event for entry in log)


async def test_an_acknowledged_segment_that_cannot_be_deleted_is_not_sent_again(
    settings: Settings,
    publisher: MemoryPublisher,
    app_credential: Issued,
    monkeypatch: pytest.MonkeyPatch,
    log: list[Any],
) -> None:
    deleting, tries = Shelf.delete_file, []

    def refuse(shelf: Shelf, segment: SegmentFile) -> None:
        tries.append(segment.number)
        raise OSError(errno.EROFS, "Read-only file system")

    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        ids = [await post(client, body_of(number)) for number in range(3)]
        monkeypatch.setattr(Shelf, "delete_file", refuse)
        publisher.ready = True
        await wait_until(lambda: bool(tries))
        await asyncio.sleep(1.5)
        assert [receipt.batch_id for receipt, _, _ in publisher.drained] == ids
        assert 1 <= len(tries) <= 3
        assert told(log, "spool.segment_not_deleted") == 1
        assert list_segments(slot_of(settings))
        seen = len(publisher.marks)
        await wait_until(lambda: len(publisher.marks) >= seen + 2)
        mark = publisher.marks[-1]
        assert (mark.spooled_batches, mark.oldest_ms, mark.low_ms) == (0, 0, mark.at_ms)
        assert mark.spooled_bytes > 0  # they still take room
        assert metric("spool_batches") == 0
        monkeypatch.setattr(Shelf, "delete_file", deleting)
        await wait_until(lambda: not list_segments(slot_of(settings)))
    assert len(publisher.drained) == 3


async def test_what_is_written_while_an_old_file_is_deleted_waits_for_its_turn(
    settings: Settings, app_credential: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that is still written to is never read, however long a deletion takes."""
    publisher, shelf = MemoryPublisher(), Shelf(tmp_path)
    spool = Spool(shelf, settings)

    async def append(name: str) -> None:
        make = partial(Receipt, batch_id=name, received_at_ms=1, events=0, bytes=1)
        await spool.append(b"{}", b"", 1, lambda collector, sequence: make(collector=collector, sequence=sequence))

    deleting = Shelf.delete_file

    def refuse(shelf: Shelf, segment: SegmentFile) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Shelf, "delete_file", refuse)
    drainer = Drainer(publisher, 1.0)
    await append("first")
    await drainer.drain(shelf, spool.seal)
    [old] = shelf.acknowledged
    old.rests_until = 0.0
    loop = asyncio.get_running_loop()

    def append_meanwhile(shelf: Shelf, segment: SegmentFile) -> None:
        if segment is old:
            asyncio.run_coroutine_threadsafe(append("second"), loop).result(10)
        deleting(shelf, segment)

    monkeypatch.setattr(Shelf, "delete_file", append_meanwhile)
    await drainer.drain(shelf, spool.seal)
    await append("third")
    await drainer.drain(shelf, spool.seal)
    assert [receipt.batch_id for receipt, _, _ in publisher.drained] == ["first", "second", "third"]
    assert shelf.empty
    await spool.close(1)


async def test_an_adopted_slot_is_kept_while_it_cannot_be_emptied(
    settings: Settings, app_credential: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.caretaker._LOOK_INTERVAL_S", 0.1)
    first, second = MemoryPublisher(), MemoryPublisher()
    async with (
        serving(settings, first, app_credential.token),
        serving(settings, second, app_credential.token) as client,
    ):
        first.ready = second.ready = False
        await post(client, body_of(0))
    deleting = Shelf.delete_file

    def refuse(shelf: Shelf, segment: SegmentFile) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Shelf, "delete_file", refuse)
    adopter = MemoryPublisher()
    async with serving(settings, adopter, app_credential.token):
        await wait_until(lambda: len(adopter.drained) == 1)
        await asyncio.sleep(1.5)
        assert len(adopter.drained) == 1
        other = second.marks[-1].id
        assert [mark.spooled_batches for mark in adopter.marks if mark.id == other][-1] == 0
        monkeypatch.setattr(Shelf, "delete_file", deleting)
        await wait_until(lambda: any(mark.id == other and not mark.open for mark in adopter.marks))
    assert len(adopter.drained) == 1


async def test_an_unreadable_segment_is_told_once_and_tried_again_seldom(
    settings: Settings,
    publisher: MemoryPublisher,
    app_credential: Issued,
    monkeypatch: pytest.MonkeyPatch,
    log: list[Any],
) -> None:
    reading: list[Path] = []

    def refuse(segment: SegmentFile) -> Any:
        reading.append(segment.path)
        raise OSError(errno.EIO, "Input/output error")

    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        id_ = await post(client, body_of(0))
        monkeypatch.setattr(drain, "read_segment", refuse)
        publisher.ready = True
        await wait_until(lambda: bool(reading))
        await asyncio.sleep(1.5)
        assert 1 <= len(reading) <= 3
        assert told(log, "spool.segment_not_drained") == 1
        assert publisher.drained == []
        monkeypatch.setattr(drain, "read_segment", read_segment)
        await wait_until(lambda: [receipt.batch_id for receipt, _, _ in publisher.drained] == [id_])
        await wait_until(lambda: not list_segments(slot_of(settings)))


async def test_a_record_that_kafka_refuses_is_set_aside_whole_and_the_rest_goes_on(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued, log: list[Any]
) -> None:
    before = metric("spool_damaged_bytes_total")
    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        ids = [await post(client, body_of(number)) for number in range(5)]
        [segment] = list_segments(slot_of(settings))
        publisher.refused = body_of(2)
        publisher.ready = True
        await wait_until(lambda: not list_segments(slot_of(settings)))
        assert publisher.broken == 1
    assert list(dict.fromkeys(receipt.batch_id for receipt, _, _ in publisher.drained)) == [
        ids[number] for number in (0, 1, 3, 4)
    ]
    [kept] = (slot_of(settings) / DAMAGED).iterdir()
    data = kept.read_bytes()
    assert metric("spool_damaged_bytes_total") - before == len(data)
    assert told(log, "spool.record_refused") == 1
    # Under the name of a segment it is drained again, once Kafka takes it.
    publisher.refused = None
    kept.rename(segment.path)
    async with serving(settings, publisher, app_credential.token):
        await wait_until(lambda: not list_segments(slot_of(settings)))
    receipt, body, key = publisher.drained[-1]
    assert (receipt.batch_id, body, key) == (ids[2], body_of(2), b"d2")


async def test_a_record_that_can_neither_be_sent_nor_set_aside_waits(
    settings: Settings, publisher: MemoryPublisher, app_credential: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[Any] = []

    def refuse(*arguments: Any) -> None:
        tries.append(arguments)
        raise OSError(errno.EROFS, "Read-only file system")

    async with serving(settings, publisher, app_credential.token) as client:
        publisher.ready = False
        await post(client, body_of(0))
        monkeypatch.setattr(drain, "set_aside", refuse)
        publisher.refused = body_of(0)
        publisher.ready = True
        await wait_until(lambda: bool(tries))
        await asyncio.sleep(1)
        assert len(tries) <= 2
        assert publisher.broken == 1  # it has gone alone since
        assert list_segments(slot_of(settings))
        monkeypatch.setattr(drain, "set_aside", set_aside)
        await wait_until(lambda: not list_segments(slot_of(settings)))
    assert len(list((slot_of(settings) / DAMAGED).iterdir())) == 1
