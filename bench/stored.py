"""Millions of stored events, made by the engine itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from midstream.clickhouse.client import ClickHouse

_CHUNK = 500_000
_MERGING_S = 300
_QUIET_LOOKS = 3

_ROWS = """SELECT
    concat('INTERACT:', lower(hex(sipHash128(number)))) AS mid, xxh3(mid), 'INTERACT', '3.0',
    toDateTime64({start:UInt32} + number * {step:Float64}, 3, 'UTC') AS at, '', at, at,
    concat('channel-', toString(number % 5)) AS channel, 'home', concat('device-', toString(number % 10000)) AS did, '',
    concat('user-', toString(number % 10000)) AS actor_id, 'User', 'prod.app',
    concat('do_', toString(number % 500)) AS object_id, 'Content', '{"type":"TOUCH","id":"next"}', false,
    concat('batch-', toString(intDiv(number, 20))), number % 20, xxh3(text), concat('{"eid":"INTERACT","ets":',
        toString(toUnixTimestamp64Milli(at)), ',"ver":"3.0","mid":"', mid, '","actor":{"id":"', actor_id,
        '","type":"User"},"context":{"channel":"', channel, '","env":"home","did":"', did,
        '","pdata":{"id":"prod.app"}},"object":{"id":"', object_id,
        '","type":"Content"},"edata":{"type":"TOUCH","id":"next"}}') AS text
"""
"""One row a ``number``: an INTERACT, short and valid."""

_FILL = f"""
INSERT INTO learning_events (mid, mid_hash, eid, ver, ets, ets_original, received_at, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, object_id, object_type, edata, late, batch_id, event_index, content_hash, raw)
{_ROWS} FROM numbers({{from:UInt64}}, {{count:UInt64}})
"""

_SAMPLE = f"""
SELECT text FROM
({_ROWS} FROM (SELECT number * {{stride:UInt64}} + {{from:UInt64}} AS number FROM numbers({{count:UInt64}})))
"""  # noqa: S608  constants of this module


@dataclass(frozen=True, slots=True)
class Filled:
    """Events that were made: numbers from ``first`` to before ``events``, ``step_s`` seconds apart from ``start_s``."""

    first: int
    events: int
    start_s: int
    step_s: float


def fill(
    clickhouse: ClickHouse, events: int, start_s: int, span_s: int, say: Callable[[int], None], *, first: int = 0
) -> Filled:
    """Store events of batches of 20 until there are ``events``, of which ``first`` are there already.

    Were all made at once, they would be received evenly over ``span_s`` seconds from ``start_s``. ``say`` is told how
    many there are, now and then.
    """
    step_s = span_s / events
    for begin in range(first, events, _CHUNK):
        count = min(_CHUNK, events - begin)
        clickhouse.rows(_FILL, {"start": start_s, "step": step_s, "from": begin, "count": count})
        say(begin + count)
    return Filled(first, events, start_s, step_s)


def sample(clickhouse: ClickHouse, filled: Filled, count: int) -> list[str]:
    """Return the texts of ``count`` events that were made, as an app would send them again, spread evenly over them."""
    stride = max((filled.events - filled.first) // count, 1)
    asked = {
        "start": filled.start_s,
        "step": filled.step_s,
        "from": filled.first,
        "stride": stride,
        "count": min(count, filled.events - filled.first),
    }
    return [text for (text,) in clickhouse.rows(_SAMPLE, asked)]


def let_merge(clickhouse: ClickHouse) -> None:
    """Wait, for a bounded time, until the engine has merged what was stored in minutes instead of days."""
    end = time.monotonic() + _MERGING_S
    quiet = 0
    while quiet < _QUIET_LOOKS and time.monotonic() < end:
        time.sleep(1.0)
        ((merges,),) = clickhouse.rows("SELECT count() FROM system.merges")
        quiet = 0 if merges else quiet + 1
