"""How far ``telemetry.raw`` is through the whole pipeline. Pure.

Three groups read in a chain, and Kafka's committed offsets say how far each is. What ``validate`` committed at one
moment, it has produced before; so once ``store`` has committed past the ends that the two middle topics had at that
moment, those batches are through. No worker has to report anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiokafka.structs import TopicPartition

_MAX_SNAPSHOTS = 600

_T = TypeVar("_T")

Offsets = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    validated: dict[TopicPartition, int]  # of telemetry.raw
    ends: dict[TopicPartition, int]  # of telemetry.valid and telemetry.dead, read after


class Progress:
    """Works out the complete offsets of ``telemetry.raw``."""

    def __init__(self) -> None:
        self._snapshots: deque[_Snapshot] = deque()

    def observe(
        self, validated: Offsets, ends: Offsets, stored: Offsets, received: Offsets
    ) -> dict[TopicPartition, int]:
        """Take one round of offsets; return the complete offset of each partition of ``telemetry.raw`` known so far.

        Args:
            validated: committed by ``validate``, read first.
            ends: ends of ``telemetry.valid`` and ``telemetry.dead``, read second.
            stored: committed by ``store`` on these, read third.
            received: committed by the consumer that writes ``batches``.
        """
        self._snapshots.append(_Snapshot(dict(validated), dict(ends)))
        self._snapshots = thin_out(self._snapshots)
        newest: _Snapshot | None = None
        while self._snapshots and is_past(stored, self._snapshots[0].ends):
            newest = self._snapshots.popleft()
        if newest is None:
            return {}
        return {tp: min(offset, received.get(tp, 0)) for tp, offset in newest.validated.items()}


def is_past(offsets: Offsets, ends: Offsets) -> bool:
    """Tell whether every partition of ``ends`` is done up to there."""
    return all(offsets.get(tp, 0) >= end for tp, end in ends.items())


def thin_out(waiting: deque[_T]) -> deque[_T]:
    """Return what waits for a long backlog in coarser steps, bounded; the oldest stays."""
    return waiting if len(waiting) <= _MAX_SNAPSHOTS else deque(list(waiting)[::2])
