"""The view that reconciles what was received with what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from midstream.clickhouse.client import ClickHouse, open_client
from midstream.clickhouse.migrate import load_migrations, migrate, render_statements
from midstream.settings import Settings

AT = "2026-01-01 10:00:30"
MINUTE = "2026-01-01 10:00:00"
NONE = (0, 0, 0, 0, 0, 0)


def batch(
    clickhouse: ClickHouse,
    batch_id: str,
    events: int,
    offset: int,
    partition: int = 0,
    at: str = AT,
    appended_at: str = "",
) -> None:
    clickhouse.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, topic, partition, offset, source, appended_at) "
        f"VALUES ('{batch_id}', '{at}', {events}, 'telemetry.raw', {partition}, {offset}, 'http', "
        f"'{appended_at or at}')"
    )


def arrivals(
    clickhouse: ClickHouse, table: str, batch_id: str, places: Sequence[int], channel: str = "c", at: str = AT
) -> None:
    clickhouse.command(
        f"INSERT INTO {table} (mid, batch_id, event_index, channel, received_at) "
        f"SELECT concat('{batch_id}-', toString(place)), '{batch_id}', place, '{channel}', '{at}' "
        f"FROM (SELECT arrayJoin({list(places)}) AS place)"
    )


def parked_body(clickhouse: ClickHouse, batch_id: str, events: int, code: str = "BATCH_UNREADABLE") -> None:
    clickhouse.command(
        "INSERT INTO reject_rows (batch_id, event_index, received_at, code, scope, events) "
        f"VALUES ('{batch_id}', -1, '{AT}', '{code}', 'batch', {events})"
    )


def progress(clickhouse: ClickHouse, partition: int, offset: int, since: str = "1970-01-01 00:00:00") -> None:
    clickhouse.command(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at, since) "
        f"SELECT 'telemetry.raw', {partition}, {offset}, now64(3), '{since}'"
    )


def accounted(clickhouse: ClickHouse, minute: str = MINUTE) -> dict[str, tuple[int, ...]]:
    rows = clickhouse.rows(
        "SELECT channel, received, stored, duplicate, rejected, in_flight, unaccounted FROM accounting "
        f"WHERE minute = '{minute}' ORDER BY channel"
    )
    found = {row[0]: tuple(row[1:]) for row in rows}
    assert all(row[0] == sum(row[1:]) for row in found.values())
    return found


def surplus(clickhouse: ClickHouse) -> int:
    return int(clickhouse.rows("SELECT sum(surplus) FROM accounting")[0][0])


def test_a_batch_on_its_way_is_in_flight_and_then_owes_nothing(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 10, 5)
    progress(clickhouse, 0, 5)
    assert accounted(clickhouse) == {"": (10, 0, 0, 0, 10, 0)}
    arrivals(clickhouse, "learning_events", "b1", range(6))
    arrivals(clickhouse, "operational_events", "b1", [6])
    assert accounted(clickhouse) == {"c": (7, 7, 0, 0, 0, 0), "": (3, 0, 0, 0, 3, 0)}
    arrivals(clickhouse, "duplicate_rows", "b1", [7, 8])
    arrivals(clickhouse, "reject_rows", "b1", [9])
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse) == {"c": (10, 7, 2, 1, 0, 0)}


def test_what_is_missing_of_a_batch_that_is_through_is_unaccounted(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 10, 5)
    arrivals(clickhouse, "learning_events", "b1", range(9))
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse)[""] == (1, 0, 0, 0, 0, 1)


def test_each_event_stands_under_its_own_channel(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 6, 5)
    arrivals(clickhouse, "learning_events", "b1", [0, 1, 2], "c1")
    arrivals(clickhouse, "learning_events", "b1", [3], "c2")
    arrivals(clickhouse, "reject_rows", "b1", [4], "c2")
    arrivals(clickhouse, "reject_rows", "b1", [5], "")
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse) == {
        "c1": (3, 3, 0, 0, 0, 0),
        "c2": (2, 1, 0, 1, 0, 0),
        "": (1, 0, 0, 1, 0, 0),
    }


def test_each_partition_has_its_own_progress(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 1, 5, partition=0)
    batch(clickhouse, "b2", 1, 5, partition=1)
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse)[""] == (2, 0, 0, 0, 1, 1)


def test_events_that_are_stored_before_their_batch_is_written_owe_nothing(clickhouse: ClickHouse) -> None:
    arrivals(clickhouse, "learning_events", "b1", range(4))
    assert accounted(clickhouse) == {"c": (4, 4, 0, 0, 0, 0)}
    assert surplus(clickhouse) == 0


def test_an_arrival_written_twice_is_counted_once(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 2, 5)
    batch(clickhouse, "b1", 2, 9)
    for _ in range(2):
        arrivals(clickhouse, "duplicate_rows", "b1", [0])
        arrivals(clickhouse, "reject_rows", "b1", [1])
    progress(clickhouse, 0, 10)
    assert accounted(clickhouse) == {"c": (2, 0, 1, 1, 0, 0)}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (("reject_rows", "learning_events"), (2, 2, 0, 0, 0, 0)),  # parked, and stored by a later try
        (("learning_events", "reject_rows"), (2, 2, 0, 0, 0, 0)),
        (("duplicate_rows", "learning_events"), (2, 2, 0, 0, 0, 0)),
        (("reject_rows", "duplicate_rows"), (2, 0, 2, 0, 0, 0)),
        (("reject_rows", "duplicate_rows", "operational_events"), (2, 2, 0, 0, 0, 0)),
    ],
)
def test_an_arrival_is_counted_stored_before_duplicate_before_rejected(
    clickhouse: ClickHouse, tables: Sequence[str], expected: tuple[int, ...]
) -> None:
    batch(clickhouse, "b1", 2, 5)
    for table in tables:
        arrivals(clickhouse, table, "b1", [0, 1])
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse) == {"c": expected}
    assert surplus(clickhouse) == 0


def test_an_overlap_does_not_pay_for_a_loss_in_the_same_batch(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 4, 5)
    arrivals(clickhouse, "learning_events", "b1", [0, 1, 2])
    arrivals(clickhouse, "reject_rows", "b1", [2])
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse) == {"c": (3, 3, 0, 0, 0, 0), "": (1, 0, 0, 0, 0, 1)}


def test_a_row_too_many_is_surplus_and_pays_for_no_loss(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 4, 5)
    batch(clickhouse, "b2", 4, 6)
    arrivals(clickhouse, "learning_events", "b1", [0, 1, 2])
    arrivals(clickhouse, "learning_events", "b2", [0, 1, 2, 3, 4])  # an arrival that b2 does not have
    arrivals(clickhouse, "learning_events", "b2", [3])  # an arrival stored twice
    progress(clickhouse, 0, 7)
    assert accounted(clickhouse) == {"c": (8, 8, 0, 0, 0, 0), "": (1, 0, 0, 0, 0, 1)}
    assert surplus(clickhouse) == 2


def test_a_body_that_could_not_be_split_stands_for_all_its_events(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "b1", 20, 5)
    parked_body(clickhouse, "b1", 20)
    progress(clickhouse, 0, 6)
    assert accounted(clickhouse) == {"": (20, 0, 0, 20, 0, 0)}
    arrivals(clickhouse, "learning_events", "b1", range(15))  # it could be split after all, in part
    assert accounted(clickhouse) == {"c": (15, 15, 0, 0, 0, 0), "": (5, 0, 0, 5, 0, 0)}


def test_a_record_inside_the_pipeline_that_cannot_be_read_stands_for_nothing(clickhouse: ClickHouse) -> None:
    parked_body(clickhouse, "made-up", 0, "POISON")
    assert accounted(clickhouse) == {}


def test_what_an_older_generation_of_the_topic_held_is_through(clickhouse: ClickHouse) -> None:
    batch(clickhouse, "old", 1, 500, appended_at="2026-01-01 10:00:31")
    batch(clickhouse, "new", 1, 3, appended_at="2026-01-01 10:00:40")
    batch(clickhouse, "through", 1, 2, appended_at="2026-01-01 10:00:39")
    progress(clickhouse, 0, 3, since="2026-01-01 10:00:39")
    assert accounted(clickhouse) == {"": (3, 0, 0, 0, 1, 2)}


def day(days: int) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d 12:00:00")


def test_events_that_retention_has_deleted_are_not_missing(settings: Settings) -> None:
    def unaccounted() -> dict[str, int]:
        rows = client.rows("SELECT toString(toDate(minute)) AS d, sum(unaccounted) FROM accounting GROUP BY d")
        return {row[0]: int(row[1]) for row in rows if row[1]}

    migrate(settings.model_copy(update={"retention_operational_days": 30}))
    client = open_client(settings)
    for days in (2, 20, 40):
        batch(client, f"b{days}", 3, 5, at=day(days))
        arrivals(client, "learning_events", f"b{days}", [0, 1], at=day(days))
    progress(client, 0, 6)
    assert unaccounted() == {day(2)[:10]: 1, day(20)[:10]: 1}
    migrate(settings.model_copy(update={"retention_operational_days": 7}))
    assert unaccounted() == {day(2)[:10]: 1}
    # What seven days have deleted does not come back with a longer retention; nor with one for ever.
    for longer in (90, 0):
        migrate(settings.model_copy(update={"retention_operational_days": longer}))
        assert unaccounted() == {day(2)[:10]: 1}
    assert client.rows("SELECT sum(stored), sum(received) FROM accounting")[0] == (6, 7)


def test_retention_is_measured_from_the_newest_progress_not_from_now(settings: Settings) -> None:
    migrate(settings.model_copy(update={"retention_operational_days": 30}))
    client = open_client(settings)
    batch(client, "b1", 3, 5)
    client.command(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at) "
        "VALUES ('telemetry.raw', 0, 6, '2026-01-20 00:00:00')"
    )
    assert accounted(client) == {"": (3, 0, 0, 0, 0, 3)}
    client.command(
        "INSERT INTO progress_rows (topic, partition, complete_offset, published_at) "
        "VALUES ('telemetry.raw', 0, 6, '2026-02-20 00:00:00')"
    )
    assert accounted(client) == {}


def test_complete_until_is_one_moment_that_only_moves_forward(clickhouse: ClickHouse) -> None:
    def reached() -> list[str]:
        return [str(row[0]) for row in clickhouse.rows("SELECT toString(complete_until) FROM complete_until")]

    assert reached() == ["1970-01-01 00:00:00.000"]
    batch(clickhouse, "b1", 1, 5)
    for at in ("2026-01-01 10:00:00.500", "2026-01-01 11:00:00.000", "2026-01-01 10:30:00.000"):
        clickhouse.command(f"INSERT INTO watermark_rows VALUES ('complete', '{at}')")
    clickhouse.command("INSERT INTO watermark_rows VALUES ('settled', '2026-01-02 00:00:00.000')")
    clickhouse.command("OPTIMIZE TABLE watermark_rows FINAL")
    assert reached() == ["2026-01-01 11:00:00.000"]
    assert [str(row[0]) for row in clickhouse.rows("SELECT toString(complete_until) FROM accounting")] == reached()


def test_a_filter_on_minute_reads_only_what_it_must(clickhouse: ClickHouse) -> None:
    """Four hours of events in eight granules and more; of the last minute of them one granule a table is read."""
    clickhouse.command(
        "INSERT INTO learning_events (mid, batch_id, event_index, channel, received_at) "
        f"SELECT toString(number), toString(intDiv(number, 20)), number % 20, 'c', toDateTime64('{MINUTE}', 3, 'UTC') "
        "+ toIntervalMillisecond(intDiv(number, 20) * 200) FROM numbers(1440000)"
    )
    clickhouse.command(
        "INSERT INTO batch_rows (batch_id, events, topic, offset, received_at) SELECT toString(number), 20, "
        f"'telemetry.raw', number, toDateTime64('{MINUTE}', 3, 'UTC') + toIntervalMillisecond(number * 200) "
        "FROM numbers(72000)"
    )
    progress(clickhouse, 0, 72_000)
    where = "WHERE minute >= '2026-01-01 13:59:00'"
    assert clickhouse.rows(f"SELECT sum(stored), sum(unaccounted) FROM accounting {where}")[0] == (6_000, 0)
    plan = "\n".join(row[0] for row in clickhouse.rows(f"EXPLAIN indexes = 1 SELECT * FROM accounting {where}"))
    for table, index in (("learning_events", "Skip"), ("batch_rows", "PrimaryKey")):
        used = plan.split(f"{table})")[1].split(index)[1]
        few, all_ = used.split("Granules: ")[1].split()[0].split("/")
        assert int(few) <= 3 < 8 < int(all_), plan


def test_a_home_with_data_from_before_is_migrated(settings: Settings) -> None:
    open_client(settings, database="default").command(f"CREATE DATABASE {settings.clickhouse.rsplit('/', 1)[1]}")
    client = open_client(settings)
    for migration in load_migrations()[:5]:
        for statement in render_statements(migration.text, ""):
            client.command(statement)
    client.command(
        "INSERT INTO batch_rows (batch_id, received_at, events, topic, partition, offset) VALUES "
        f"('b1', '{AT}', 4, 'telemetry.raw', 0, 5), ('b2', '{AT}', 1, 'telemetry.raw', 0, 6)"
    )
    arrivals(client, "learning_events", "b1", [0, 1, 2])
    arrivals(client, "reject_rows", "b1", [3])
    client.command(
        "INSERT INTO reject_rows (batch_id, event_index, received_at, code, scope) VALUES "
        f"('b2', -1, '{AT}', 'BATCH_UNREADABLE', 'batch'), ('x', -1, '{AT}', 'POISON', 'batch')"
    )
    client.command("INSERT INTO progress_rows VALUES ('telemetry.raw', 0, 7, now64(3))")
    assert "0006_exactness" in migrate(settings)
    assert accounted(client) == {"c": (4, 3, 0, 1, 0, 0), "": (1, 0, 0, 1, 0, 0)}
    ((appended, received),) = client.rows("SELECT appended_at, received_at FROM batches WHERE batch_id = 'b1'")
    assert appended == received
    assert sorted(row[0] for row in client.rows("SELECT events FROM rejects")) == [0, 1, 1]
