"""What was written after a backup and must not be lost with a restore: who was erased, and learners' records.

Both lie in Kafka: the digests of those who were erased on the compacted topic ``dimensions``, for ever, and every write
of a learner's record on ``assignment.telemetry``, for seven days. Where the registry of now is there still, it names
those who were erased, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition
from sqlalchemy import Engine, func, select, update

from midstream import topics
from midstream.assignments.compute import steps_of
from midstream.assignments.fields import FIELDS, Value
from midstream.assignments.rows import TABLE, VALUE_COLUMNS, PlacedWrite, RecordKey, Write, rows_of
from midstream.backup.claims import insert_batch
from midstream.backup.errors import BackupError
from midstream.clickhouse.client import ClickHouse
from midstream.dimensions import DimensionType, InternalType
from midstream.erased import ErasedKey
from midstream.kafka.connection import connection
from midstream.kafka.schemas import look_up_in
from midstream.records import RecordError, decode_record
from midstream.registry.academies.records import hash_slug
from midstream.registry.academies.tables import Record
from midstream.registry.academies.upserts import insert
from midstream.registry.engine import unavailable_as_such
from midstream.registry.sync.erased import ErasedIds
from midstream.settings import Settings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEY_PREFIX = f"{InternalType.ERASED}/".encode()
_PORTION_BYTES = 8 * 1024 * 1024
_MAX_RECORDS = 2_000


async def erased_in_kafka(
    settings: Settings, begins: dict[TopicPartition, int], told: Callable[[int], None]
) -> set[str]:
    """Return the digests on the topic ``dimensions``. Raises BackupError: ``KAFKA``."""
    found: set[str] = set()
    async for record in _records(settings, begins):
        told(1)
        if record.value is not None and (record.key or b"").startswith(_KEY_PREFIX):
            found.add(record.key.removeprefix(_KEY_PREFIX).decode())
    return found


def add_erased(engine: Engine, digests: Iterable[str], job: str) -> list[str]:
    """Note digests in the registry; return those that it did not know. Raises RegistryUnavailable."""
    ids = ErasedIds(engine)
    new = sorted(set(digests) - ids.all(DimensionType.USER))
    for digest in new:
        ids.add(digest, DimensionType.USER, job)
    return new


async def replay_writes(
    settings: Settings,
    begins: dict[TopicPartition, int],
    engine: Engine,
    clickhouse: ClickHouse,
    erased: Callable[[], ErasedKey],
    life: str,
) -> int:
    """Store learners' writes again that came to Kafka after the backup; return how many. Stored twice they count once.

    Args:
        settings: where Kafka is.
        begins: of each partition of ``assignment.telemetry``, where to begin.
        engine: the restored registry, which is told of the records and of the versions that were given.
        clickhouse: the restored tables.
        erased: makes digests of users: of those who were erased nothing is stored.
        life: name that the rows get as their writer's.

    Raises:
        BackupError: ``KAFKA``.
        ClickHouseError, RegistryUnavailable: one of them is away.
    """
    look_up_in(settings)  # a newer version may have written some of them
    gone = ErasedIds(engine)
    waiting: list[dict[str, Any]] = []
    size_bytes = stored = 0

    def store() -> int:
        kept = waiting
        if gone.is_any():
            key = erased()
            users = {key.digest(DimensionType.USER, str(one["user_id"])): one["user_id"] for one in waiting}
            left_out = {users[digest] for digest in gone.among(users)}
            kept = [one for one in waiting if one["user_id"] not in left_out]
        if kept:
            placed = _place(engine, kept)
            insert_batch(clickhouse, TABLE, rows_of(placed, life, 0))
        return len(kept)

    async for record in _records(settings, begins):
        try:
            waiting.append(decode_record(topics.ASSIGNMENT.name, record.value or b""))
        except RecordError:
            continue  # nothing of ours writes such a record
        size_bytes += len(record.value or b"")
        if size_bytes >= _PORTION_BYTES or len(waiting) >= _MAX_RECORDS:
            stored += await asyncio.to_thread(store)
            waiting.clear()
            size_bytes = 0
    if waiting:
        stored += await asyncio.to_thread(store)
    return stored


def _place(engine: Engine, writes: Sequence[dict[str, Any]]) -> list[PlacedWrite]:
    """Make the registry know the records of these writes, under their ids; return the writes with their places."""
    created: dict[RecordKey, int] = {}
    with unavailable_as_such(), engine.begin() as connection:
        for one in writes:
            key = RecordKey(one["academy_id"], one["asset_slug"], one["user_id"])
            row = {
                "id": one["id"],
                "academy_id": key.academy_id,
                "asset_hash": hash_slug(key.asset_slug),
                "asset_slug": key.asset_slug,
                "user_id": key.user_id,
                "version": one["version"],
                "created_us": one["written_at_us"],
                "confirmed": True,
            }
            connection.execute(insert(engine, Record).values(**row).on_conflict_do_nothing())
            its = (
                Record.academy_id == key.academy_id,
                Record.asset_hash == row["asset_hash"],
                Record.user_id == key.user_id,
            )
            later = update(Record).where(*its, Record.version < one["version"]).values(version=one["version"])
            connection.execute(later)
            connection.execute(update(Record).where(*its).values(confirmed=True))
            found = connection.scalar(select(Record.created_us).where(*its))
            if found is None:
                raise BackupError("RECORD_IDS", f"another learner's record has the id {one['id']} in the registry")
            created[key] = found
        if engine.dialect.name == "postgresql":  # ids that were given by hand do not move its sequence
            sequence = func.pg_get_serial_sequence(Record.__tablename__, "id")
            highest = select(func.max(Record.id)).scalar_subquery()
            connection.execute(select(func.setval(sequence, highest)))
    return [_placed(one, created) for one in writes]


def _placed(one: dict[str, Any], created: dict[RecordKey, int]) -> PlacedWrite:
    key = RecordKey(one["academy_id"], one["asset_slug"], one["user_id"])
    values: dict[str, Value] = {}
    for name, column in zip(FIELDS, VALUE_COLUMNS, strict=True):
        value = one[column]
        values[name] = value.encode() if isinstance(value, str) else value
    given = {name: values[name] for name in one["fields"]}
    computed = {name: values[name] for name in one["computed_fields"]}
    write = Write(key, one["author"], given, computed, steps_of(given.get("telemetry")))
    written = _EPOCH + timedelta(microseconds=one["written_at_us"])
    return PlacedWrite(write, one["id"], one["version"], written, _EPOCH + timedelta(microseconds=created[key]))


async def _records(
    settings: Settings, begins: dict[TopicPartition, int]
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    """Yield the records from these offsets to the ends that there are now."""
    consumer = AIOKafkaConsumer(
        **connection(settings),
        client_id="midstream-restore",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=16 * 1024 * 1024,
    )
    timeout_s = settings.kafka_timeout_ms / 1000
    try:
        async with asyncio.timeout(timeout_s):
            await consumer.start()
            partitions = list(begins)
            if not partitions:
                return
            ends = await consumer.end_offsets(partitions)
            firsts = await consumer.beginning_offsets(partitions)
            consumer.assign(partitions)
            for tp, offset in begins.items():
                consumer.seek(tp, max(offset, firsts[tp]))
        came_at = asyncio.get_running_loop().time()
        while True:
            async with asyncio.timeout(timeout_s):
                if all([await consumer.position(tp) >= ends[tp] for tp in partitions]):
                    return
                taken = await consumer.getmany(timeout_ms=500, max_records=_MAX_RECORDS)
            now = asyncio.get_running_loop().time()
            came_at = now if taken else came_at
            if now - came_at > timeout_s:
                raise TimeoutError("no record came")
            for tp, records in taken.items():
                for record in records:
                    if record.offset < ends[tp]:
                        yield record
    except (KafkaError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        raise BackupError("KAFKA", f"Kafka at {settings.kafka_servers} cannot be read: {reason}") from None
    finally:
        await consumer.stop()
