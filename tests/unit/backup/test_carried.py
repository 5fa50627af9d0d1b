"""Learners' writes since the backup, as the restored registry gets to know them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from midstream.backup import carried
from midstream.backup.carried import add_erased
from midstream.backup.errors import BackupError
from midstream.registry.academies.records import Records, Wanted
from midstream.registry.sync.erased import ErasedIds

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOW_US = int(NOW.timestamp() * 1_000_000)


def write(id_: int, asset: str, version: int, **fields: Any) -> dict[str, Any]:
    """A record of ``assignment.telemetry``, read."""
    none = dict.fromkeys(
        (
            *("telemetry", "metrics", "engagement_score", "frustration_score", "completion_rate"),
            *("metrics_algo_version", "total_time_us"),
        )
    )
    return {
        **none,
        "academy_id": 1,
        "asset_slug": asset,
        "user_id": 5,
        "id": id_,
        "version": version,
        "author": 5,
        "written_at_us": version,
        "fields": list(fields),
        "computed_fields": [],
        **fields,
    }


def test_records_keep_their_ids_and_later_ones_get_others(engine: Engine) -> None:
    records = Records(engine)
    [known] = records.reserve([Wanted(1, "known", 5, 1, NOW)])
    records.confirm([known.id])
    new_id = known.id + 3
    later = known.first_version + 1_000_000
    placed = carried._place(
        engine,
        [
            write(new_id, "new", NOW_US, metrics='{"a":1}'),
            write(known.id, "known", later, engagement_score=4.0),
            write(new_id, "new", NOW_US + 5, engagement_score=None),
        ],
    )
    assert [(one.id, one.version) for one in placed] == [(new_id, NOW_US), (known.id, later), (new_id, NOW_US + 5)]
    assert placed[0].write.given == {"metrics": b'{"a":1}'}
    assert placed[2].write.given == {"engagement_score": None}
    assert {one.created_at for one in placed} == {NOW}
    found = records.find(1, "new", 5)
    assert found is not None
    assert (found.id, found.confirmed) == (new_id, True)
    again, fresh = records.reserve([Wanted(1, "new", 5, 1, NOW), Wanted(1, "fresh", 5, 1, NOW)])
    assert (again.id, again.first_version) == (new_id, NOW_US + 6)
    assert fresh.id > new_id
    [after] = records.reserve([Wanted(1, "known", 5, 1, NOW)])
    assert after.first_version > later


def test_taken_twice_it_is_the_same(engine: Engine) -> None:
    writes = [write(9, "new", NOW_US + 5), write(9, "new", NOW_US + 7)]
    assert carried._place(engine, writes) == carried._place(engine, writes)


def test_an_id_is_never_that_of_two_records(engine: Engine) -> None:
    carried._place(engine, [write(9, "one", NOW_US)])
    with pytest.raises(BackupError) as caught:
        carried._place(engine, [write(9, "other", NOW_US)])
    assert caught.value.code == "RECORD_IDS"


def test_erasures_are_added_once(engine: Engine) -> None:
    ids = ErasedIds(engine)
    ids.add("a" * 24, "user", "job")
    assert add_erased(engine, {"a" * 24, "b" * 24}, "") == ["b" * 24]
    assert add_erased(engine, {"b" * 24}, "") == []
    assert ids.all("user") == {"a" * 24, "b" * 24}
