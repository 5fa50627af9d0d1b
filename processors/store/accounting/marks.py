"""Reads the marks of all collectors: the compacted topic ``collectors``, from its beginning, without a group."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from midstream.kafka.collectors import read_to_end
from midstream.kafka.connection import connection
from midstream.kafka.marks import Mark, decode_mark
from midstream.logs import get_logger
from midstream.metrics import OPEN_COLLECTORS
from midstream.records import OtherVersionError, RecordError
from midstream.settings import Settings
from processors.store.accounting.watermark import Collectors

log = get_logger(__name__)


class MarkReader:
    """Keeps :class:`Collectors` as the topic has them."""

    def __init__(self, settings: Settings) -> None:
        self._stall_s = settings.kafka_timeout_ms / 1000
        self.collectors = Collectors()
        self.changed: dict[str, Mark] = {}
        """Newest marks since the caller last emptied this; bounded as ``collectors`` is."""
        self._consumer = AIOKafkaConsumer(**connection(settings), group_id=None, enable_auto_commit=False)

    async def start(self) -> None:
        """Connect."""
        await self._consumer.start()

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()

    async def read_low(self, partitions: list[TopicPartition]) -> int:
        """Read all marks that there are now; return :meth:`Collectors.low_ms` of them.

        All: a collector that is not known yet would not hold the moment back.

        Args:
            partitions: those of ``collectors``.

        Raises:
            KafkaError, TimeoutError: Kafka refuses, or nothing came for ``kafka_timeout_ms``.
        """
        new = [tp for tp in partitions if tp not in self._consumer.assignment()]
        if new:
            self._consumer.assign(partitions)
            async with asyncio.timeout(self._stall_s):
                await self._consumer.seek_to_beginning(*new)
        await read_to_end(self._consumer, partitions, self._take, self._stall_s)
        OPEN_COLLECTORS.set(len(self.collectors.open))
        return self.collectors.low_ms()

    def _take(self, record: ConsumerRecord[Any, Any]) -> None:
        id_ = (record.key or b"").decode(errors="replace")
        if record.value is None:
            known = self.collectors.open.get(id_, Mark(id_, 0, 0, True))
            self.collectors.forget(id_)
            # Shown as closed; rows are told apart by their time, which is that of the collector's clock.
            self.changed[id_] = replace(known, open=False, at_ms=max(known.at_ms + 1, record.timestamp))
            return
        try:
            mark = decode_mark(record.value)
        except (RecordError, OtherVersionError) as error:
            # A collector of a newer version, perhaps: until it can be read it may promise nothing at all.
            log.warning("marks.unreadable", id=id_[:100], offset=record.offset, error=str(error)[:200])
            mark = Mark(id_, 0, record.timestamp, True)
        self.collectors.take(mark)
        self.changed[mark.id] = mark
