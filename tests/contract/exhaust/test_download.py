"""What a download holds."""

from __future__ import annotations

import gzip
import re
import subprocess
from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import Engine

from midstream.registry.exhaust.licences import Licences
from tests.contract.exhaust.conftest import HASH, Api, Partner, Store, day_before

DAY, BEFORE = day_before(1), day_before(2)


def test_the_events_of_a_day_as_they_came(partner: Partner, store: Store) -> None:
    late = store.put(DAY, 3600 * 23 + 3599.999)
    second = store.put(DAY, 10.5, batch_id="b", event_index=11)
    first = store.put(DAY, 10.5, batch_id="b", event_index=2)
    before = store.put(DAY, 0.0, eid="LOG", table="operational_events")
    store.put(DAY, 5, tags=())
    store.put(DAY, 5, tags=("b" * 40,))
    store.put(BEFORE, 86_399.999)
    store.close_days()
    archive = partner.archive(DAY, DAY)
    assert archive.names == [f"aggregated-{DAY}.gz"]
    names = list(archive.files(DAY))
    epochs = [round(one.at.timestamp() * 1000) for one in (before, late)]
    assert names == [f"data-exhaust-00.log-{DAY}-{epochs[0]}.gz", f"data-exhaust-23.log-{DAY}-{epochs[1]}.gz"]
    assert archive.lines(DAY) == [one.line for one in (before, first, second, late)]


def test_the_name_of_a_download_is_the_same_each_time(partner: Partner, store: Store) -> None:
    store.put(DAY)
    store.close_days()
    said = [partner.post(BEFORE, DAY).headers["content-disposition"] for _ in range(2)]
    assert said[0] == said[1]
    assert re.fullmatch(rf'attachment; filename="dataset-{BEFORE}-to-{DAY}-\d+\.zip"', said[0])


@pytest.mark.parametrize("days", [(), (DAY,), (DAY, DAY)])
def test_days_not_named_are_yesterday(partner: Partner, store: Store, days: tuple[object, ...]) -> None:
    event = store.put(DAY)
    store.close_days()
    assert partner.archive(*days).lines(DAY) == [event.line]


def test_a_day_without_events_is_an_empty_zip(partner: Partner, store: Store) -> None:
    event = store.put(DAY)
    store.close_days()
    archive = partner.archive(day_before(3), DAY)
    assert archive.names == [f"aggregated-{day}.gz" for day in (day_before(3), BEFORE, DAY)]
    assert archive.files(BEFORE) == {}
    assert archive.lines(DAY) == [event.line]


def test_line_breaks_in_an_event_do_not_break_its_line(partner: Partner, store: Store) -> None:
    event = store.put(DAY, raw='{\r\n  "eid": "LOG",\n  "text": "a\\nb",\n  "tags": []\n}')
    store.close_days()
    assert partner.archive(DAY, DAY).lines(DAY) == [event.line]


@pytest.mark.parametrize("asked", [HASH, HASH.upper(), HASH[:32], HASH[:32].upper()])
def test_a_resource_is_its_hash_in_any_letter_case(api: Api, partner: Partner, store: Store, asked: str) -> None:
    events = [store.put(DAY, number, tags=(tag, "other")) for number, tag in enumerate((HASH, HASH.upper(), HASH[:32]))]
    store.put(DAY, 9, tags=(HASH[:31], HASH + "0", f"x{HASH}"))
    store.close_days()
    assert Partner(api, partner.key, resource=asked).archive(DAY, DAY).lines(DAY) == [one.line for one in events]


def test_only_what_is_asked_for(partner: Partner, store: Store) -> None:
    wanted = store.put(DAY, 1, eid="ASSESS", channel="a")
    also = store.put(DAY, 2, eid="LOG", channel="b", table="operational_events")
    store.put(DAY, 3, eid="ASSESS", channel="c")
    store.put(DAY, 4, eid="INTERACT", channel="a")
    store.close_days()
    archive = partner.archive(DAY, DAY, query="?eid=ASSESS&eid=LOG&channel=a&channel=b")
    assert archive.lines(DAY) == [wanted.line, also.line]
    assert partner.archive(DAY, DAY, query="?eid=SEARCH").files(DAY) == {}
    assert len(partner.archive(DAY, DAY).lines(DAY)) == 4


def test_csv_and_parquet_hold_the_same_events(partner: Partner, store: Store, tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    events = [store.put(DAY, number * 3000.0, tags=(HASH, 't,"x')) for number in range(5)]
    store.close_days()
    rows = {}
    for form, read in (("csv", pyarrow.csv.read_csv), ("parquet", pyarrow.parquet.read_table)):
        files = partner.archive(DAY, DAY, query=f"?format={form}").files(DAY)
        tables = []
        for name, packed in files.items():
            path = tmp_path / name
            path.write_bytes(packed)  # pyarrow inflates what is called .gz
            tables.append(read(path))
        rows[form] = [row for table in tables for row in table.to_pylist()]
        assert [row["raw"] for row in rows[form]] == [one.raw for one in events]
        assert [row["batch_id"] for row in rows[form]] == [one.batch_id for one in events]
        received = [row["received_at"].replace(tzinfo=UTC) for row in rows[form]]
        assert received == [one.at for one in events]
    assert rows["parquet"][0]["tags"] == [HASH, 't,"x']
    assert list(rows["csv"][0]) == list(rows["parquet"][0])


def test_info_zip_opens_both_zips(partner: Partner, store: Store, tmp_path: Path) -> None:
    event = store.put(DAY, 7)
    store.close_days()
    outer = tmp_path / "outer.zip"
    outer.write_bytes(partner.archive(BEFORE, DAY).content)
    try:
        subprocess.run(["unzip", "-q", str(outer), "-d", str(tmp_path)], check=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("Info-ZIP's unzip is not installed here")
    inner = subprocess.run(
        ["unzip", "-p", str(tmp_path / f"aggregated-{DAY}.gz")], check=True, timeout=30, capture_output=True
    )
    assert event.raw[1:-1] in gzip.decompress(inner.stdout).decode()


def test_a_licence_opens_what_was_granted_alone(api: Api, registry: Engine, store: Store) -> None:
    mine = store.put(DAY, tags=("1" * 40,))
    store.put(DAY, tags=("2" * 40,))
    store.close_days()
    key = Licences(registry).create("one", [("D001", "1" * 40)])
    assert Partner(api, key, resource="1" * 40).archive(DAY, DAY).lines(DAY) == [mine.line]
    reply = Partner(api, key, resource="2" * 40).post(DAY, DAY)
    assert reply.status_code == 403
    assert reply.json()["params"]["err"] == "AUTHORIZATION_FAILED"
