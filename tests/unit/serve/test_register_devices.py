"""Registrations of devices: several at once, behind each other, in several processes; stores that are away."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from midstream.clickhouse.client import ClickHouseError
from midstream.dimensions import MAX_VERSION, Dimension, DimensionError, VersionClock
from midstream.kafka.dimension_publisher import PublishError
from midstream.metrics import DEVICE_ROWS_UNSEEN
from midstream.settings import Settings
from serve.calls import CallError
from serve.register import devices
from serve.register.attributes import NO_ROW, Row, read_attributes
from serve.register.devices import DeviceRegister
from serve.register.rows import find_rows


class Stores:
    """Kafka, and ClickHouse that has what :meth:`arrive` brings from there."""

    def __init__(self) -> None:
        self.topic: list[Dimension] = []
        self.rows: dict[str, Row] = {}
        self.asked = 0
        self.clickhouse_away = self.kafka_away = False
        self.hold: threading.Event | None = None
        """Set: the next answer, of what is there then, waits for it."""

    async def publish(self, row: Dimension) -> None:
        await asyncio.sleep(0)
        if self.kafka_away:
            raise PublishError("Kafka did not acknowledge in time")
        self.topic.append(row)

    def find(self, dids: Sequence[str]) -> list[Row]:
        self.asked += 1
        if self.clickhouse_away:
            raise ClickHouseError("no answer", None)
        answer = [self.rows.get(did, NO_ROW) for did in dids]
        hold, self.hold = self.hold, None
        if hold is not None:
            assert hold.wait(10)
        return answer

    def arrive(self) -> None:
        """Let ClickHouse have what the topic has: of each key the highest version."""
        for row in self.topic:
            if row.version >= self.rows.get(row.id, NO_ROW).version:
                self.rows[row.id] = Row(read_attributes(row.attributes), row.version)

    def device(self, did: str = "d") -> dict[str, Any]:
        return {name: json.loads(value) for name, value in self.rows[did].attributes.items()}


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
async def register(stores: Stores) -> AsyncIterator[DeviceRegister]:
    opened = open_register(stores)
    yield opened
    await opened.close()


@pytest.fixture
async def other(stores: Stores) -> AsyncIterator[DeviceRegister]:
    """Another process's."""
    opened = open_register(stores)
    yield opened
    await opened.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are looked for as soon as they are published."""
    monkeypatch.setattr(devices, "_LOOK_AFTER_S", 0.0)


def open_register(stores: Stores, **settings: Any) -> DeviceRegister:
    return DeviceRegister(Settings(**settings), stores.find, stores, VersionClock())


async def test_fields_that_are_not_given_stay(register: DeviceRegister, stores: Stores) -> None:
    assert await register.register("d", {"a": b"1", "b": b"2"})
    stores.arrive()
    assert await register.register("d", {"b": b"3"})
    stores.arrive()
    assert stores.device() == {"a": 1, "b": 3}
    assert stores.topic[1].version > stores.topic[0].version


async def test_the_next_one_knows_the_former_before_clickhouse_does(register: DeviceRegister, stores: Stores) -> None:
    await register.register("d", {"a": b"1"})
    await register.register("d", {"b": b"2"})
    assert await register.known("d") == {"a": b"1", "b": b"2"}
    await register.register("d", {"c": b"3"})
    stores.arrive()
    assert stores.device() == {"a": 1, "b": 2, "c": 3}


async def test_many_at_once_lose_nothing(register: DeviceRegister, stores: Stores) -> None:
    await asyncio.gather(*(register.register("d", {f"k{n}": b"%d" % n}) for n in range(50)))
    stores.arrive()
    assert stores.device() == {f"k{n}": n for n in range(50)}
    versions = [row.version for row in stores.topic]
    assert versions == sorted(set(versions))


async def test_devices_are_read_together(register: DeviceRegister, stores: Stores) -> None:
    await asyncio.gather(*(register.register(f"d{n}", {"a": b"1"}) for n in range(200)))
    assert len(stores.topic) == 200
    assert stores.asked < 20


async def test_what_says_nothing_new_is_not_published(register: DeviceRegister, stores: Stores) -> None:
    assert await register.register("d", {"a": b"1"})
    assert not await register.register("d", {"a": b"1"})
    stores.arrive()
    assert not await register.register("d", {"a": b"1"})
    assert not await register.register("d", {})
    assert len(stores.topic) == 1


async def test_a_device_of_which_nothing_is_said_is_known_then(register: DeviceRegister, stores: Stores) -> None:
    assert await register.register("d", {})
    assert not await register.register("d", {})
    assert [row.attributes for row in stores.topic] == ["{}"]


async def test_a_row_that_never_arrived_is_published_again_after_minutes(
    register: DeviceRegister, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register.register("d", {"a": b"1"})
    monkeypatch.setattr(devices, "REPEAT_AFTER_S", 0.0)
    assert await register.register("d", {})
    assert [row.attributes for row in stores.topic] == ['{"a":1}'] * 2


async def test_a_version_is_above_what_is_there(register: DeviceRegister, stores: Stores) -> None:
    ahead = time.time_ns()
    stores.rows["d"] = Row({"pushed": b"1"}, ahead)
    stores.rows["gone"] = Row({}, ahead, deleted=True)
    stores.rows["top"] = Row({}, MAX_VERSION)
    for did in ("d", "gone", "top"):
        assert await register.register(did, {"a": b"1"})
    assert [row.version for row in stores.topic] == [ahead + 1, ahead + 1, MAX_VERSION]
    stores.arrive()
    assert stores.device() == {"pushed": 1, "a": 1}
    assert stores.device("gone") == {"a": 1}


async def test_a_deleted_device_that_registers_is_there_again(register: DeviceRegister, stores: Stores) -> None:
    stores.rows["d"] = Row({}, 5, deleted=True)
    assert await register.register("d", {})
    assert [row.deleted for row in stores.topic] == [False]


async def test_what_another_process_did_not_know_is_put_back(
    register: DeviceRegister, other: DeviceRegister, stores: Stores, at_once: None
) -> None:
    await register.register("d", {"token": b'"t"'})
    await other.register("d", {"place": b'"p"'})
    await asyncio.sleep(0.002)
    stores.rows["d"] = Row({"place": b'"p"'}, stores.topic[1].version + 5)
    await register.look_again()
    stores.arrive()
    assert stores.device() == {"token": "t", "place": "p"}
    for _ in range(3):
        await other.look_again()
        await register.look_again()
        stores.arrive()
    assert len(stores.topic) == 3, "they go on putting back"
    assert stores.device() == {"token": "t", "place": "p"}


async def test_it_is_put_back_when_the_others_row_comes_as_late_as_its_own(
    register: DeviceRegister, other: DeviceRegister, stores: Stores, at_once: None
) -> None:
    """The other's was made before ours was there, and is there after ours was seen."""
    await register.register("d", {"token": b'"t"'})
    await asyncio.sleep(0.2)
    await other.register("d", {"place": b'"p"'})
    stores.rows["d"] = Row({"token": b'"t"'}, stores.topic[0].version)
    for _ in range(2):
        await register.look_again()
        assert not await register.register("d", {"token": b'"t"'})
    stores.arrive()
    assert stores.device() == {"place": "p"}
    await register.look_again()
    stores.arrive()
    assert stores.device() == {"token": "t", "place": "p"}


async def test_it_is_put_back_by_the_next_registration_too(
    register: DeviceRegister, other: DeviceRegister, stores: Stores
) -> None:
    stores.rows["d"] = Row({"x": b"0"}, 1)
    await register.register("d", {"token": b'"t"'})
    await other.register("d", {"place": b'"p"'})
    stores.rows["d"] = Row({"x": b"0", "place": b'"p"'}, stores.topic[1].version + 5)
    assert await register.known("d") == {"x": b"0", "place": b'"p"', "token": b'"t"'}
    assert await register.register("d", {})
    stores.arrive()
    assert stores.device() == {"x": 0, "token": "t", "place": "p"}


@pytest.mark.parametrize("reads_only", [False, True])
async def test_a_row_that_arrives_behind_a_slow_answer_is_not_overlooked(
    register: DeviceRegister, stores: Stores, at_once: None, reads_only: bool
) -> None:
    """ClickHouse answered before it had the row; the row was seen there, and forgotten, before the answer was read."""
    await register.register("d", {"a": b"1"})
    stores.hold = held = threading.Event()
    slow = register.known("d") if reads_only else register.register("d", {"b": b"2"})
    task: asyncio.Task[Any] = asyncio.create_task(slow)
    await asyncio.sleep(0.05)
    stores.arrive()
    await register.look_again()
    assert not task.done()
    held.set()
    if reads_only:
        assert await task == {"a": b"1"}
    else:
        assert await task
        stores.arrive()
        assert stores.device() == {"a": 1, "b": 2}


async def test_nothing_is_remembered_once_clickhouse_has_it(
    register: DeviceRegister, stores: Stores, at_once: None
) -> None:
    before = DEVICE_ROWS_UNSEEN._value.get()
    await register.register("d", {"a": b"1"})
    await register.look_again()
    assert DEVICE_ROWS_UNSEEN._value.get() == before + 1
    stores.arrive()
    await register.look_again()
    assert DEVICE_ROWS_UNSEEN._value.get() == before + 1  # another row may be as far behind as this one was
    await asyncio.sleep(0.1)
    await register.look_again()
    assert DEVICE_ROWS_UNSEEN._value.get() == before
    asked = stores.asked
    await register.look_again()
    assert stores.asked == asked


async def test_a_look_leaves_rows_that_were_just_published(register: DeviceRegister, stores: Stores) -> None:
    await register.register("d", {"a": b"1"})
    asked = stores.asked
    await register.look_again()
    assert stores.asked == asked


async def test_what_is_remembered_is_bounded(
    register: DeviceRegister, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "MAX_PUBLISHED", 3)
    before = DEVICE_ROWS_UNSEEN._value.get()
    for n in range(10):
        await register.register(f"d{n}", {"a": b"1"})
    assert DEVICE_ROWS_UNSEEN._value.get() == before + 3
    await register.close()
    assert DEVICE_ROWS_UNSEEN._value.get() == before


async def test_what_is_remembered_is_bounded_by_its_size(
    register: DeviceRegister, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "MAX_PUBLISHED_BYTES", 5_000)
    before = DEVICE_ROWS_UNSEEN._value.get()
    for n in range(10):
        await register.register(f"d{n}", {"a": b'"' + b"x" * 1_000 + b'"'})  # counted twice: as given, and in the row
    assert DEVICE_ROWS_UNSEEN._value.get() == before + 2
    await register.register("large", {"a": b'"' + b"x" * 10_000 + b'"'})
    assert DEVICE_ROWS_UNSEEN._value.get() == before


async def test_without_clickhouse_nothing_is_published(register: DeviceRegister, stores: Stores, at_once: None) -> None:
    await register.register("d", {"a": b"1"})
    stores.clickhouse_away = True
    with pytest.raises(ClickHouseError):
        await register.register("d", {"b": b"1"})
    with pytest.raises(ClickHouseError):
        await register.known("d")
    await register.look_again()
    assert len(stores.topic) == 1
    stores.clickhouse_away = False
    assert await register.register("d", {"b": b"1"})
    stores.arrive()
    assert stores.device() == {"a": 1, "b": 1}


async def test_without_kafka_nothing_is_believed(register: DeviceRegister, stores: Stores) -> None:
    stores.kafka_away = True
    with pytest.raises(PublishError):
        await register.register("d", {"a": b"1"})
    assert await register.known("d") == {}
    stores.kafka_away = False
    assert await register.register("d", {"a": b"1"})


async def test_what_cannot_be_put_back_now_is_later(register: DeviceRegister, stores: Stores, at_once: None) -> None:
    await register.register("d", {"a": b"1"})
    stores.rows["d"] = Row({"b": b"2"}, stores.topic[0].version + 5)
    stores.kafka_away = True
    await register.look_again()
    stores.kafka_away = False
    await register.look_again()
    stores.arrive()
    assert stores.device() == {"a": 1, "b": 2}


async def test_a_row_that_would_be_too_large_is_refused(stores: Stores) -> None:
    register = open_register(stores, max_dimension_bytes=1024)
    stores.rows["d"] = Row({"pushed": b'"' + b"x" * 1000 + b'"'}, 1)
    with pytest.raises(DimensionError) as refused:
        await register.register("d", {"a": b'"' + b"y" * 100 + b'"'})
    assert refused.value.code == "TOO_LARGE"
    await register.close()


async def test_who_waits_for_a_device_waits_for_so_long(
    register: DeviceRegister, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_LOCK_TIMEOUT_S", 0.05)
    stores.hold = held = threading.Event()
    first = asyncio.create_task(register.register("d", {"a": b"1"}))
    await asyncio.sleep(0.01)
    with pytest.raises(CallError):
        await register.register("d", {"b": b"1"})
    held.set()
    assert await first
    assert await register.register("d", {"b": b"1"})


async def test_it_looks_by_itself(stores: Stores, monkeypatch: pytest.MonkeyPatch, at_once: None) -> None:
    monkeypatch.setattr(devices, "_LOOK_EVERY_S", 0.01)
    register = open_register(stores)
    register.start()
    await register.register("d", {"a": b"1"})
    stores.rows["d"] = Row({"b": b"2"}, stores.topic[0].version + 5)
    for _ in range(500):
        if len(stores.topic) == 2:
            break
        await asyncio.sleep(0.01)
    await register.close()
    assert stores.topic[1].attributes == '{"b":2,"a":1}'


def test_rows_come_in_the_order_of_asking() -> None:
    asked: list[dict[str, Any]] = []

    def query(_: str, parameters: dict[str, Any]) -> list[tuple[str, str, int, bool]]:
        asked.append(parameters)
        return [("b", '{"n":1}', 3, False), ("a", '{"n":2}', 4, True), ("c", "nonsense", 5, False)]

    assert find_rows(query, ["a", "x", "b", "a", "c"]) == [
        Row({}, 4, True),
        NO_ROW,
        Row({"n": b"1"}, 3),
        Row({}, 4, True),
        Row({}, 5),
    ]
    assert asked == [{"type": "device", "ids": ["a", "x", "b", "c"]}]
