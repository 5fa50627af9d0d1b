"""Reading given ranges of Kafka's records, once, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from aiokafka import AIOKafkaConsumer

from midstream.kafka.connection import connection
from midstream.settings import Settings
from midstream.trace.offsets import Ranges
from processors.validate.split import RawRecord

_MAX_FETCH_BYTES = 4 << 20
_MAX_PARTITION_BYTES = 1 << 20
_MAX_RECORDS = 200
_POLL_MS = 200


class Reader:
    """One consumer, for one reading at a time. Belongs to one event loop; connects when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def read(self, ranges: Ranges) -> AsyncGenerator[list[RawRecord], None]:
        """Yield all records of the ranges, some at a time, in order within each partition; then end.

        Bound it in time, and close it when it is not read to its end. Records that retention has deleted are left out.

        Raises:
            KafkaError: Kafka does not give them now.
        """
        if not ranges:
            return
        async with self._lock:
            consumer = await self._connect()
            try:
                consumer.assign(list(ranges))
                for tp, (start, _) in ranges.items():
                    consumer.seek(tp, start)
                open_ = set(ranges)
                while open_:
                    fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)
                    for tp, records in fetched.items():
                        if records[-1].offset + 1 >= ranges[tp][1]:
                            open_.discard(tp)
                            consumer.pause(tp)  # before anything else runs: else it would ask for what comes after
                    yield [
                        RawRecord(
                            record.topic,
                            record.partition,
                            record.offset,
                            record.timestamp or 0,
                            record.value or b"",
                            record.headers,
                        )
                        for records in fetched.values()
                        for record in records
                    ]
                consumer.unsubscribe()
            except BaseException:
                # One whose reading was broken off may still hold, or wait for, records of it.
                self._consumer = None
                await consumer.stop()
                raise

    async def close(self) -> None:
        """Close the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _connect(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = AIOKafkaConsumer(
                **connection(self._settings),
                client_id="midstream-trace-reader",
                group_id=None,
                auto_offset_reset="earliest",  # where retention has deleted the first of them
                request_timeout_ms=self._settings.kafka_timeout_ms,
                fetch_max_bytes=_MAX_FETCH_BYTES,
                max_partition_fetch_bytes=_MAX_PARTITION_BYTES,
                fetch_max_wait_ms=50,
            )
            try:
                await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._consumer = consumer
        return self._consumer
