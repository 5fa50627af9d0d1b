"""Users with attributes, and stored events that carry copies of them, as ``store`` would have written them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence

import orjson
import pyarrow as pa

from bench.mix import PEOPLE, user_id
from midstream.clickhouse.client import ClickHouse

OLD, NEW = "Old", "New"
"""Marks, by which attributes and copies are told apart."""

_CHUNK = 250_000
_DAY_S = 86_400
_TABLE = "dimension_rows"
_ROWS = pa.schema(
    [
        ("type", pa.string()),
        ("id", pa.string()),
        ("attributes", pa.string()),
        ("version", pa.int64()),
        ("deleted", pa.bool_()),
        ("updated_at", pa.timestamp("ms", "UTC")),
        ("stored_at", pa.timestamp("ms", "UTC")),
    ]
)

# Half of the events are of the first users, evenly.
_FILL = f"""
INSERT INTO learning_events (mid, mid_hash, eid, ver, ets, ets_original, received_at, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, object_id, object_type, edata, late, batch_id, event_index, content_hash, raw,
    user, location, flags)
WITH if(number % 2 = 0, intDiv(number, 2) % {{changed:UInt32}},
    {{changed:UInt32}} + intDiv(number, 2) % ({PEOPLE} - {{changed:UInt32}})) AS person
SELECT
    concat('INTERACT:', lower(hex(sipHash128(number)))) AS mid, xxh3(mid), 'INTERACT', '3.0',
    toDateTime64({{start:UInt32}} + number * {{step:Float64}}, 3, 'UTC') AS at, '', at, at,
    concat('channel-', toString(person % 5)) AS channel, 'home', concat('device-', toString(person)) AS did,
    lower(hex(sipHash128(intDiv(number, 50), 2))) AS sid, id, 'User', 'prod.app',
    concat('do_', toString(number % 500)) AS object_id, 'Content',
    concat('{{"type":"TOUCH","id":"next","pageid":"', lower(hex(sipHash64(number))), '"}}') AS edata, false,
    concat('batch-', toString(intDiv(number, 20))), number % 20, xxh3(text),
    concat('{{"eid":"INTERACT","ets":', toString(toUnixTimestamp64Milli(at)), ',"ver":"3.0","mid":"', mid,
        '","actor":{{"id":"', id, '","type":"User"}},"context":{{"channel":"', channel, '","env":"home","did":"', did,
        '","sid":"', sid, '","pdata":{{"id":"prod.app","pid":"player","ver":"3.1.4"}},"cdata":[]}},"object":{{"id":"',
        object_id, '","type":"Content","ver":"2"}},"tags":[],"edata":', edata, '}}') AS text,
    attributes, location, '{{"user":"found","device":"missing","content":"missing"}}'
FROM (SELECT number FROM numbers({{from:UInt64}}, {{count:UInt64}})) AS numbers
INNER JOIN (
    SELECT toUInt64(splitByChar('-', id)[2]) AS place, id, attributes,
        concat('{{"state":', toJSONString(JSONExtractString(attributes, 'state')), ',"district":',
            toJSONString(JSONExtractString(attributes, 'district')), ',"from":"user-profile"}}') AS location
    FROM dimensions WHERE type = 'user' AND place < {PEOPLE}
) AS users ON users.place = person
"""  # noqa: S608  constants


QUERY = "SELECT JSONExtractString(user, 'state') AS state, count() FROM events GROUP BY state"
"""The query whose cost is told."""

_PATCHES = """SELECT count(), sum(rows), sum(bytes_on_disk) FROM system.parts
WHERE database = currentDatabase() AND active AND startsWith(name, 'patch-')"""


def attributes(number: int, mark: str) -> dict[str, object]:
    """Return a user's attributes, some 200 bytes of JSON; state and district begin with the mark."""
    return {
        "state": f"{mark} State {number % 30}",
        "district": f"{mark} District {number % 700}",
        "board": f"State Board {number % 30}",
        "grade": [f"Class {number % 10 + 1}"],
        "medium": ["English", "Kannada"],
        "roles": ["student"],
        "school": f"29{number % 100_000:09d}",
        "type": "student",
    }


def line(number: int, mark: str) -> bytes:
    """Return a user as a line of a bulk load."""
    return orjson.dumps({"id": user_id(number), "attributes": attributes(number, mark)}) + b"\n"


def store_users(clickhouse: ClickHouse, numbers: Sequence[int], mark: str) -> None:
    """Write users into ClickHouse, as ``store`` does it; the later they are written, the higher their version."""
    now_ms = time.time_ns() // 1_000_000
    for some in _chunks(numbers):
        rows = [
            ["user"] * len(some),
            [user_id(number) for number in some],
            [orjson.dumps(attributes(number, mark)).decode() for number in some],
            [now_ms] * len(some),
            [False] * len(some),
            [now_ms] * len(some),
            [now_ms] * len(some),
        ]
        batch = pa.record_batch([pa.array(column, of.type) for column, of in zip(rows, _ROWS, strict=True)], _ROWS)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, _ROWS) as writer:
            writer.write_batch(batch)
        body: bytes = sink.getvalue().to_pybytes()
        clickhouse.insert_stream(_TABLE, _ROWS.names, body, uuid.uuid4().hex, tries=1, before_try=lambda _: None)


def fill(clickhouse: ClickHouse, events: int, changed: int) -> None:
    """Store so many events of the mix's users, half of them of the first ``changed`` users, with their present copies.

    They were received evenly over a day that ended yesterday at this time.
    """
    asked = {
        "start": int(time.time()) - 2 * _DAY_S,
        "step": _DAY_S / events,
        "changed": changed,
    }
    for begin in range(0, events, _CHUNK):
        clickhouse.rows(_FILL, {**asked, "from": begin, "count": min(_CHUNK, events - begin)})


def changed_ids(changed: int) -> list[str]:
    """Return the ids of the first users."""
    return [user_id(number) for number in range(changed)]


def lines(numbers: Sequence[int], mark: str) -> Iterator[bytes]:
    """Yield users as the body of a bulk load."""
    for some in _chunks(numbers):
        yield b"".join(line(number, mark) for number in some)


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for begin in range(0, len(numbers), _CHUNK):
        yield numbers[begin : begin + _CHUNK]


def patches(clickhouse: ClickHouse) -> dict[str, float]:
    """Return the updates of events that readers must put in place themselves, as they are not merged yet."""
    ((parts, rows, size_bytes),) = clickhouse.rows(_PATCHES)
    return {"parts": parts, "rows": rows, "mb": round(size_bytes / 1e6, 1)}
