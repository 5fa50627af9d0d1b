"""Millions of stored events, made by the engine itself."""

from __future__ import annotations

from collections.abc import Callable

from midstream.clickhouse.client import ClickHouse

_CHUNK = 500_000

_FILL = """
INSERT INTO learning_events (mid, mid_hash, eid, ver, ets, ets_original, received_at, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, object_id, object_type, edata, late, batch_id, event_index, content_hash, raw)
SELECT
    concat('INTERACT:', lower(hex(sipHash128(number)))) AS mid, xxh3(mid), 'INTERACT', '3.0',
    toDateTime64({start:UInt32} + number * {step:Float64}, 3, 'UTC') AS at, '', at, at,
    concat('channel-', toString(number % 5)), 'home', concat('device-', toString(number % 10000)), '',
    concat('user-', toString(number % 10000)), 'User', 'prod.app',
    concat('do_', toString(number % 500)), 'Content', '{"type":"TOUCH"}', false,
    concat('batch-', toString(intDiv(number, 20))), number % 20, xxh3(mid), concat('{"mid":"', mid, '"}')
FROM numbers({from:UInt64}, {count:UInt64})
"""


def fill(clickhouse: ClickHouse, events: int, start_s: int, span_s: int, say: Callable[[int], None]) -> None:
    """Store ``events`` events of batches of 20, received evenly over ``span_s`` seconds from ``start_s``.

    ``say`` is told how many there are, now and then.
    """
    for begin in range(0, events, _CHUNK):
        count = min(_CHUNK, events - begin)
        clickhouse.rows(_FILL, {"start": start_s, "step": span_s / events, "from": begin, "count": count})
        say(begin + count)
