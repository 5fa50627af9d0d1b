"""The views over what many writes make together: last writer wins, in any order."""

import random

import pytest

from midstream.clickhouse.client import ClickHouse

REPORTS = [
    ("t", "20", "2026-01-01 00:00:00", "r1", 0),
    ("u", "1", "2026-01-01 00:00:00", "r1", 0),
    ("t", "21", "2026-01-02 00:00:00", "r2", 0),
    ("w", "1", "2026-01-02 00:00:00", "r2", 0),
    ("", "", "2026-01-02 12:00:00", "r3", 1),
    ("u", "5", "2026-01-02 12:00:00", "r3", 0),
    ("x", "1", "2026-01-03 00:00:00", "r4", 0),
    ("x", "null", "2026-01-03 00:00:00", "r5", 0),
    ("v", "9", "2026-01-03 00:00:00", "r4", 0),
]


@pytest.mark.parametrize("seed", range(4))
def test_a_devices_state_is_that_of_its_reports_in_any_order(clickhouse: ClickHouse, seed: int) -> None:
    rng = random.Random(seed)
    deliveries = REPORTS + rng.sample(REPORTS, 4)
    rng.shuffle(deliveries)
    for key, value, at, report, override in deliveries:
        clickhouse.command(
            f"INSERT INTO device_history_rows VALUES "
            f"('d', '{key}', '{value}', '{at}', '{at}', '{at}', '{report}', {override})"
        )
    state = clickhouse.rows("SELECT key, value FROM device_state WHERE device_id = 'd' ORDER BY key")
    assert [tuple(row) for row in state] == [("u", "5"), ("v", "9")]
    assert clickhouse.rows("SELECT count() FROM device_history")[0][0] == len([r for r in REPORTS if r[0]])


def test_an_assignment_is_the_latest_of_each_field(clickhouse: ClickHouse) -> None:
    for field, value, at in [
        ("engagement_score", "90.5", "2026-01-01 00:00:00.000002"),
        ("telemetry", '{"a":1}', "2026-01-01 00:00:00.000001"),
        ("engagement_score", "null", "2026-01-01 00:00:00.000003"),
        ("completion_rate", "50", "2026-01-01 00:00:00.000003"),
    ]:
        clickhouse.command(
            f"INSERT INTO assignment_history VALUES (1, 2, 'intro', 7, '{field}', '{value}', '{at}', 'w')"
        )
    (row,) = clickhouse.named_rows("SELECT * FROM assignment_telemetry")
    assert (row["id"], row["telemetry"], row["engagement_score"], row["completion_rate"]) == (7, '{"a":1}', None, 50.0)
    assert row["created_at"] < row["updated_at"]
