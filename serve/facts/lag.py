"""How long a group is behind in a topic: the age of its oldest record that is not acknowledged. Pure but for ``find``.

No record is read for it, which would be megabytes of each partition: Kafka is asked for the first offset at or after a
moment. If that lies behind the oldest record that is not acknowledged, this record is older than the moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiokafka.structs import TopicPartition

Offsets = Mapping[TopicPartition, int]
Find = Callable[[Mapping[TopicPartition, int]], Awaitable[Mapping[TopicPartition, int | None]]]
"""Given a moment (epoch ms) of each partition, returns its first offset of then or later; None: there is none."""

LONGEST_S = 2**22
"""48 days: a topic that keeps its records for longer is behind by at least so much."""

_FIRST_S = 1.0
_PRECISION = 8


def behind(ends: Offsets, firsts: Offsets, committed: Offsets) -> dict[TopicPartition, int]:
    """Return the offset of the oldest record that is not acknowledged, of each partition that has one.

    Args:
        ends: of each partition, the offset of the next record.
        firsts: of each partition, the first offset that there is: what retention has deleted is not waited for.
        committed: the next record that the group wants; nothing is committed of a partition that is not named.
    """
    wanted = {tp: max(committed.get(tp, 0), firsts[tp]) for tp in ends}
    return {tp: offset for tp, offset in wanted.items() if offset < ends[tp]}


async def age_s(find: Find, oldest: Offsets, now_ms: int) -> float:
    """Return the least age of the oldest of these records, in seconds; it is an eighth older at the most, or a second.

    Args:
        find: see :data:`Find`.
        oldest: offset of a record of each partition.
        now_ms: the present, epoch ms.
    """
    if not oldest:
        return 0.0

    async def is_older(seconds: float) -> bool:
        found = await find(dict.fromkeys(oldest, now_ms - int(seconds * 1000)))
        return any(first is None or first > oldest[tp] for tp, first in found.items())

    least, most = 0.0, _FIRST_S
    while await is_older(most):
        least, most = most, most * 2
        if most > LONGEST_S:
            return least
    while most - least > max(least / _PRECISION, _FIRST_S):
        middle = (least + most) / 2
        if await is_older(middle):
            least = middle
        else:
            most = middle
    return least
