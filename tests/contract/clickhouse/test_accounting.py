"""The view that reconciles what was received with what became of it."""

from __future__ import annotations

from midstream.clickhouse.client import ClickHouse

AT = "2026-01-01 10:00:30"


def batch(clickhouse: ClickHouse, batch_id: str, events: int, offset: int, partition: int = 0) -> None:
    clickhouse.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, topic, partition, offset, source) "
        f"VALUES ('{batch_id}', '{AT}', {events}, 'telemetry.raw', {partition}, {offset}, 'http')"
    )


def arrivals(clickhouse: ClickHouse, table: str, batch_id: str, first: int, count: int, channel: str = "c") -> None:
    clickhouse.command(
        f"INSERT INTO {table} (mid, batch_id, event_index, channel, received_at) "
        f"SELECT concat('{batch_id}-', toString(number)), '{batch_id}', number + {first}, '{channel}', '{AT}' "
        f"FROM numbers({count})"
    )


def progress(clickhouse: ClickHouse, partition: int, offset: int) -> None:
    clickhouse.command(f"INSERT INTO progress_rows VALUES ('telemetry.raw', {partition}, {offset}, now64(3))")


def accounted(clickhouse: ClickHouse) -> dict[str, tuple[int, ...]]:
    rows = clickhouse.rows(
        "SELECT channel, received, stored, duplicate, rejected, in_flight, unaccounted FROM accounting "
        "WHERE minute = '2026-01-01 10:00:00' ORDER BY channel"
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def test_a_batch_on_its_way_is_in_flight_and_then_owes_nothing(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 10, 5)
    progress(clickhouse, 0, 5)
    assert accounted(clickhouse) == {"": (10, 0, 0, 0, 10, 0)}
    arrivals(clickhouse, "learning_events", "b1", 0, 6)
    arrivals(clickhouse, "operational_events", "b1", 6, 1)
    assert accounted(clickhouse) == {"c": (7, 7, 0, 0, 0, 0), "": (3, 0, 0, 0, 3, 0)}
    arrivals(clickhouse, "duplicate_rows", "b1", 7, 2)
    arrivals(clickhouse, "reject_rows", "b1", 9, 1)
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse) == {"c": (10, 7, 2, 1, 0, 0), "": (0, 0, 0, 0, 0, 0)}


def test_what_is_missing_of_a_batch_that_is_through_is_unaccounted(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 10, 5)
    arrivals(clickhouse, "learning_events", "b1", 0, 9)
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse)[""] == (1, 0, 0, 0, 0, 1)


def test_each_partition_has_its_own_progress(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 1, 5, partition=0)
    batch(clickhouse, "b2", 1, 5, partition=1)
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse)[""] == (2, 0, 0, 0, 1, 1)


def test_events_that_are_stored_before_their_batch_is_written_owe_nothing(clickhouse: ClickHouse) -> None:
    arrivals(clickhouse, "learning_events", "b1", 0, 4)
    assert accounted(clickhouse) == {"c": (4, 4, 0, 0, 0, 0)}


def test_an_arrival_written_twice_is_counted_once(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 2, 5)
    batch(clickhouse, "b1", 2, 9)
    for _ in range(2):
        arrivals(clickhouse, "duplicate_rows", "b1", 0, 1)
        arrivals(clickhouse, "reject_rows", "b1", 1, 1)
    progress(clickhouse, 0, 10)
    assert accounted(clickhouse) == {"c": (2, 0, 1, 1, 0, 0), "": (0, 0, 0, 0, 0, 0)}
