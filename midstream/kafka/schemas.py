"""The compacted topic ``schemas``: under which Avro schemas each version of Midstream writes.

Whoever writes says so here before its first record, and is acknowledged by ``acks=all``. So a reader that meets a
record of another version finds its schema by reading this topic to the end; one that is not there, nobody of us writes
with. Versions can run side by side in any order, and one that was rolled back leaves nothing that cannot be read.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import ConsumerRecord, TopicPartition
from fastavro.schema import SchemaParseException, UnknownType

from midstream.kafka.connection import connection
from midstream.kafka.quiet import quiet_aiokafka
from midstream.logs import get_logger
from midstream.metrics import LEARNED_SCHEMAS
from midstream.records import MAX_LEARNED, head_of, learn_from, schema_text, topics_with_schemas
from midstream.settings import Settings
from midstream.topics import SCHEMAS

_log = get_logger(__name__)

_MAX_SCHEMA_BYTES = 256 * 1024
_MAX_RECORDS = 500
_LOOK_UP_S = 10.0
_FORGET_S = 10.0


class SchemasUnavailableError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The topic cannot be read now, so that nothing can be said of a record; to be tried again."""


def announced_key(topic: str, head: bytes) -> bytes:
    """Return the key of a schema: its topic, a slash, and the fingerprint in hex as it stands in values."""
    return f"{topic}/{head[2:].hex()}".encode()


async def announce(producer: AIOKafkaProducer, topics: Iterable[str]) -> None:
    """Say under which schemas this process writes; return when Kafka has acknowledged it.

    Args:
        producer: connected, with ``acks="all"``.
        topics: those that it writes; what has no Avro schema is passed over.

    Raises:
        SchemasUnavailableError: there is no topic ``schemas``.
        KafkaError: Kafka does not take it. The caller limits the time.
    """
    written = set(topics) & set(topics_with_schemas())
    if not written:
        return
    if SCHEMAS.name not in (await producer.client.fetch_all_metadata()).topics():
        raise SchemasUnavailableError(f"there is no topic {SCHEMAS.name}: run `midstream migrate`")
    for topic in sorted(written):
        head, text = schema_text(topic)
        await producer.send_and_wait(SCHEMAS.name, text.encode(), announced_key(topic, head))


def look_up_in(settings: Settings) -> None:
    """Have this process learn the schemas of others from the topic, from now on."""
    learn_from(SchemaReader(settings).find)


class SchemaReader:
    """Finds schemas in the topic. Threads share it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._found: dict[bytes, str] = {}
        self._missing: dict[bytes, float] = {}  # by key, when it was looked for
        # Its own thread and loop: whoever decodes a record may have a loop that runs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="schemas")

    def find(self, topic: str, head: bytes) -> str | None:
        """Return the schema that values beginning with ``head`` are written with, as JSON; None: nobody writes such
        ones. Blocks, where it is not known yet, for ten seconds at the most.

        Raises:
            SchemasUnavailableError: Kafka cannot tell now.
        """
        key = announced_key(topic, head)
        if (known := self._found.get(key)) is not None:
            return known
        with self._lock:
            if (known := self._found.get(key)) is not None:
                return known
            try:
                return self._thread.submit(lambda: asyncio.run(self._look_up(key, head))).result()
            except (KafkaError, OSError, TimeoutError) as error:
                raise SchemasUnavailableError(
                    f"a record of {topic} has the schema {head[2:].hex()}, which this version does not know, and topic "
                    f"{SCHEMAS.name} cannot be read ({error!r}); if it is not there, `midstream migrate` creates it"
                ) from error

    async def _look_up(self, key: bytes, head: bytes) -> str | None:
        # Written before it was announced: by nobody of us. Records that come in one piece ask once.
        if key in self._missing and time.monotonic() - self._missing[key] < _FORGET_S:
            return None
        async with asyncio.timeout(min(_LOOK_UP_S, self._settings.kafka_timeout_ms / 1000)):
            text = await self._read(key, head)
        if text is None:
            self._missing[key] = time.monotonic()
            if len(self._missing) > MAX_LEARNED:
                del self._missing[next(iter(self._missing))]
            _log.warning("schema.unknown", key=key.decode())
        else:
            self._found[key] = text
            if len(self._found) > MAX_LEARNED:
                del self._found[next(iter(self._found))]
            LEARNED_SCHEMAS.set(len(self._found))
            _log.info("schema.learned", key=key.decode())
        return text

    async def _read(self, key: bytes, head: bytes) -> str | None:
        quiet_aiokafka()
        consumer = AIOKafkaConsumer(
            SCHEMAS.name,  # without a group: aiokafka assigns all partitions
            **connection(self._settings),
            client_id="midstream-schemas",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        found: list[str] = []
        try:
            await consumer.start()
            partitions = sorted(consumer.assignment())
            if not partitions:
                raise UnknownTopicOrPartitionError(SCHEMAS.name)
            await self._read_to_end(consumer, partitions, key, head, found)
        finally:
            await consumer.stop()
        return found[-1] if found else None

    async def _read_to_end(
        self,
        consumer: AIOKafkaConsumer,
        partitions: list[TopicPartition],
        key: bytes,
        head: bytes,
        found: list[str],
    ) -> None:
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200, max_records=_MAX_RECORDS)).values():
                found += [text for record in records if record.key == key and (text := _text_of(record, head))]


def _text_of(record: ConsumerRecord[Any, Any], head: bytes) -> str | None:
    """Return the schema in a record, if it is the one that it says it is."""
    value = record.value or b""
    if len(value) > _MAX_SCHEMA_BYTES:
        return None
    try:
        if head_of(fastavro.parse_schema(json.loads(value))) == head:
            return str(value, "utf-8")
    except (ValueError, TypeError, KeyError, SchemaParseException, UnknownType, RecursionError) as error:
        _log.warning("schema.unreadable", offset=record.offset, error=repr(error)[:200])
    return None
