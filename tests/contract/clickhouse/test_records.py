"""The views over what many writes make together: last writer wins, in any order."""

from midstream.clickhouse.client import ClickHouse


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
