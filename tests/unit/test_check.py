"""What ``midstream check`` makes of what it found, without a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from midstream import topics
from midstream.check.certificates import check_own_certificate, judge_expiry
from midstream.check.clocks import judge_skew
from midstream.check.grants import judge_analysts, judge_rights
from midstream.check.machine import check_disk, judge_packages, judge_room, locked_versions
from midstream.check.result import Level, Result
from midstream.check.topics import FoundTopic, judge_topics
from midstream.settings import MIB, Settings

DAY_S = 86_400.0
GIB = 1024 * MIB


def found_topics(**config: str) -> dict[str, FoundTopic]:
    """Topics as they must be, on one broker; settings of ``telemetry.raw`` replaced by ``config`` (``_`` for a dot)."""
    found = {topic.name: FoundTopic(2, 1, 0, 0, topic.broker_config()) for topic in topics.ALL}
    raw = found[topics.RAW.name]
    changed = {key.replace("_", "."): value for key, value in config.items()}
    found[topics.RAW.name] = replace(raw, config={**raw.config, **changed})
    return found


def judged(found: dict[str, FoundTopic], brokers: int = 1, factor: int = 1) -> list[Result]:
    return judge_topics(topics.ALL, found, brokers, factor)


def test_topics_as_declared_are_well() -> None:
    [one] = judged(found_topics())
    assert (one.level, one.change) == (Level.OK, "")
    assert "8 topics of 2 partitions" in one.message


def test_missing_topics_are_named_with_the_command_that_makes_them() -> None:
    found = found_topics()
    del found[topics.DEAD.name], found[topics.DEVICE.name]
    [one] = judged(found)
    assert (one.level, one.change) == (Level.FAIL, "midstream migrate")
    assert topics.DEAD.name in one.message
    assert topics.DEVICE.name in one.message


@pytest.mark.parametrize(
    ("config", "level"),
    [
        ({"message_timestamp_type": "CreateTime"}, Level.FAIL),
        ({"max_message_bytes": "1048588"}, Level.FAIL),
        ({"max_message_bytes": "99999999"}, Level.OK),
        ({"cleanup_policy": "delete"}, Level.OK),  # of this topic nothing is said about it
        ({"retention_ms": "3600000"}, Level.WARN),
        ({"retention_ms": "-1"}, Level.OK),
        ({"retention_ms": "9999999999"}, Level.OK),
        ({"unclean_leader_election_enable": "true"}, Level.WARN),
        ({"min_insync_replicas": "2"}, Level.FAIL),
    ],
)
def test_settings_of_a_topic(config: dict[str, str], level: Level) -> None:
    [one] = judged(found_topics(**config))
    assert one.level is level
    assert bool(one.change) == (level is not Level.OK)


def test_a_compacted_topic_that_is_not_compacted_fails() -> None:
    found = found_topics()
    dimensions = found[topics.DIMENSIONS.name]
    found[topics.DIMENSIONS.name] = replace(dimensions, config={**dimensions.config, "cleanup.policy": "delete"})
    [one] = judged(found)
    assert one.level is Level.FAIL
    assert "dimensions: cleanup.policy is delete, must be compact" in one.message


def test_replicas() -> None:
    three = {name: replace(one, replicas=3) for name, one in found_topics(min_insync_replicas="2").items()}
    by_one = [one.message for one in judged(three, brokers=3, factor=3)]
    assert len(by_one) == len(topics.ALL) - 1, "of all but telemetry.raw min.insync.replicas is 1"
    assert all("min.insync.replicas is 1" in message for message in by_one)
    few = judged(found_topics(), brokers=3, factor=3)
    assert {one.level for one in few} == {Level.WARN}
    assert len(few) == len(topics.ALL)
    away = found_topics()
    away[topics.RAW.name] = replace(away[topics.RAW.name], without_leader=1)
    away[topics.VALID.name] = replace(away[topics.VALID.name], behind=2)
    assert [one.level for one in judged(away)] == [Level.FAIL, Level.WARN]


@pytest.mark.parametrize(
    ("skew_s", "beyond_s", "level"),
    [
        (0.0, 0.0, Level.OK),
        (-0.9, 0.0, Level.OK),
        (1.1, 0.0, Level.WARN),
        (1.1, 0.2, Level.OK),
        (-61.0, 0.5, Level.FAIL),
        (3600.0, 5.0, Level.FAIL),
    ],
)
def test_skew(skew_s: float, beyond_s: float, level: Level) -> None:
    assert judge_skew("x", skew_s, beyond_s).level is level


def test_the_direction_of_a_skew_is_said() -> None:
    assert "ahead of ours" in judge_skew("x", 5.0).message
    assert "behind ours" in judge_skew("x", -5.0).message


@pytest.mark.parametrize(("days", "level"), [(31, Level.OK), (29, Level.WARN), (0.5, Level.WARN), (-1, Level.FAIL)])
def test_expiry(days: float, level: Level) -> None:
    assert judge_expiry("x", "kafka:9093", days * DAY_S).level is level


def test_our_own_certificate(tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(days=10)
    issued = trustme.CA().issue_cert("client.example", not_after=soon)
    (tmp_path / "client.pem").write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    found = check_own_certificate("x", tmp_path / "client.pem")
    assert found.level is Level.WARN
    assert found.message.endswith("for 10 more days")


def test_rights_that_lack_are_granted_by_the_line_that_is_said() -> None:
    [good] = judge_rights("u", {"midstream_writer": False, "midstream_api": True})
    assert (good.level, good.message) == (Level.OK, "u has the rights of midstream_api")
    [bad] = judge_rights("u", {"midstream_writer": False, "midstream_api": False})
    assert bad.level is Level.FAIL
    assert "GRANT midstream_writer, midstream_api TO u" in bad.change


@pytest.mark.parametrize(
    ("grants", "level"),
    [
        ([], Level.WARN),
        ([("ours", "SELECT", None)], Level.WARN),
        ([("analyst", "SELECT", "midstream")], Level.OK),
        ([("analyst", "SELECT", None), ("analyst", "SHOW TABLES", None)], Level.OK),
        ([("analyst", "SELECT", "elsewhere")], Level.WARN),
        ([("analyst", "SELECT", "midstream"), ("analyst", "INSERT", "elsewhere")], Level.WARN),
        ([("writer", "INSERT", "midstream"), ("analyst", "SELECT", "midstream")], Level.OK),
    ],
)
def test_analysts(grants: list[tuple[str, str, str | None]], level: Level) -> None:
    assert judge_analysts("ours", "midstream", grants).level is level


@pytest.mark.parametrize(
    ("free", "needed", "level"),
    [(50 * GIB, 0, Level.OK), (5 * GIB, 0, Level.WARN), (50 * GIB, 60 * GIB, Level.WARN), (100 * MIB, 0, Level.FAIL)],
)
def test_room(free: int, needed: int, level: Level) -> None:
    assert judge_room("disk", "/data", free, 100 * GIB, needed).level is level


def test_full_spools_of_all_collector_processes_are_counted(tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path, "spool_max_bytes": 2**50, "web_workers": 3})
    [one] = check_disk(settings, 1.0)
    assert one.level is Level.WARN
    assert f"{3 * 2**50 // MIB:,} MiB" in one.change


LOCK = """aiokafka==0.14.0 \\
    --hash=sha256:00
numpy==2.4.6 ; python_full_version < '3.12' \\
numpy==2.5.5 ; python_full_version >= '3.12' \\
psycopg[binary]==3.3.0
"""


def test_packages_are_compared_with_the_lock() -> None:
    locked = locked_versions(LOCK)
    assert locked == {"aiokafka": {"0.14.0"}, "numpy": {"2.4.6", "2.5.5"}, "psycopg": {"3.3.0"}}
    same = {"aiokafka": "0.14.0", "numpy": "2.5.5", "psycopg": ""}
    assert judge_packages(locked, same).level is Level.OK
    other = judge_packages(locked, same | {"aiokafka": "0.13.0"})
    assert (other.level, other.change) == (Level.WARN, "make environment")
    assert "aiokafka 0.13.0 (locked: 0.14.0)" in other.message
