"""How the partitions of ``telemetry.valid`` flow into ClickHouse, by the moments at which their blocks were stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from midstream.clickhouse.client import ClickHouse

_MOMENTS = """
SELECT mid_hash % {partitions:UInt32} AS partition, toUnixTimestamp64Milli(stored_at) AS at
FROM events WHERE received_at >= fromUnixTimestamp64Milli({since:Int64}) GROUP BY partition, at ORDER BY partition, at
"""


def stored_moments(clickhouse: ClickHouse, since_ms: int, partitions: int) -> dict[int, list[int]]:
    """Return when blocks of each partition were stored (``stored_at``: epoch milliseconds, ascending), of what was
    received since a moment. One that a worker prepared and another then inserted has the time of the second."""
    moments: dict[int, list[int]] = {partition: [] for partition in range(partitions)}
    for partition, at in clickhouse.rows(_MOMENTS, {"partitions": partitions, "since": since_ms}):
        moments[int(partition)].append(int(at))
    return moments


_LONG = 2


@dataclass(frozen=True, slots=True)
class Pause:
    """What a change of the workers did to the flow."""

    longest_ms: int
    """The longest time in which a partition got nothing, of those that were not over when the change began."""
    all_flow_ms: int
    """From the change until no partition was paused any more; 0: none was."""
    paused: int
    """Partitions that were: that got nothing for more than twice as long as is usual."""


def longest_gap(moments: Mapping[int, Sequence[int]], begin_ms: int, end_ms: int) -> int:
    """Return the longest time in which a partition got nothing, milliseconds, between two moments."""
    return max(end - begin for at in moments.values() for begin, end in pairwise(_inside(at, begin_ms, end_ms)))


def pause(moments: Mapping[int, Sequence[int]], usual_ms: int, change_ms: int, until_ms: int) -> Pause:
    """Tell what a change did.

    Args:
        moments: when each partition got something, epoch milliseconds, ascending.
        usual_ms: the longest time in which a partition gets nothing while nothing changes.
        change_ms: when the change was made.
        until_ms: the end of the time that is looked at. Who has got nothing by then has paused until then.
    """
    gaps: list[tuple[int, int, int]] = []
    for partition, at in moments.items():
        last_ms = max((moment for moment in at if moment <= change_ms), default=change_ms)
        gaps += [(partition, begin, end) for begin, end in pairwise(_inside(at, last_ms, until_ms))]
    long = [(partition, end) for partition, begin, end in gaps if end - begin > _LONG * usual_ms]
    return Pause(
        longest_ms=max(end - begin for _, begin, end in gaps),
        all_flow_ms=max((end - change_ms for _, end in long), default=0),
        paused=len({partition for partition, _ in long}),
    )


def _inside(at: Sequence[int], begin_ms: int, end_ms: int) -> list[int]:
    return [begin_ms, *(moment for moment in at if begin_ms < moment < end_ms), end_ms]
