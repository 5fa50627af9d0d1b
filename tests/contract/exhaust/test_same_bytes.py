"""A closed day has the same bytes, whoever builds it and whenever."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from midstream.exhaust.dataset import D001, Dataset
from midstream.registry.exhaust.access import ExhaustAccess
from midstream.registry.exhaust.datasets import Datasets
from midstream.registry.exhaust.revisions import Revisions
from midstream.settings import Settings
from serve.exhaust.days.keeper import Keeper, tidy
from tests.contract.exhaust.conftest import HASH, TODAY, Partner, Store, day_before, serving

FIRST, DAY = day_before(3), day_before(1)
FORMATS = ("", "?format=csv", "?format=parquet")


@pytest.fixture
def filled(store: Store) -> Store:
    """Three days, stored in several parts, not in the order of receipt."""
    for number in (3, 1, 2):
        store.fill(day_before(number), 2_000)
    for number in range(20):
        store.put(day_before(number % 3 + 1), 40_000 + number % 4, batch_id=f"b{number % 7}", event_index=19 - number)
    store.close_days()
    return store


@pytest.fixture
def elsewhere(
    make_settings: Callable[..., Settings], partner: Partner, tmp_path: Path
) -> Callable[[date, date, str], bytes]:
    """Download from an api process that has built nothing before."""

    def download(first: date, last: date, query: str) -> bytes:
        folder = tmp_path / "elsewhere"
        shutil.rmtree(folder, ignore_errors=True)
        with serving(make_settings(exhaust=folder)) as api:
            return Partner(api, partner.key).archive(first, last, query=query).content

    return download


@pytest.mark.parametrize("query", FORMATS)
def test_while_it_is_built_and_afterwards(partner: Partner, filled: Store, query: str) -> None:
    built, kept, again = (partner.post(FIRST, DAY, query=query) for _ in range(3))
    assert "content-length" not in built.headers
    assert kept.headers["content-length"] == str(len(kept.content))
    assert built.content == kept.content == again.content
    assert built.headers["etag"] == kept.headers["etag"]


@pytest.mark.parametrize("query", FORMATS)
def test_after_merges_migrations_and_from_another_process(
    partner: Partner, filled: Store, elsewhere: Callable[[date, date, str], bytes], query: str
) -> None:
    before = partner.archive(FIRST, DAY, query=query).content
    for number in range(5):
        filled.put(TODAY, number)  # today goes on
    filled.clickhouse.rows("OPTIMIZE TABLE learning_events FINAL")
    assert elsewhere(FIRST, DAY, query) == before
    for table in ("learning_events", "operational_events"):
        filled.clickhouse.rows(f"ALTER TABLE {table} ADD COLUMN extra String DEFAULT 'x' FIRST")
        filled.clickhouse.rows(f"ALTER TABLE {table} ADD COLUMN text String DEFAULT 'x'")
    try:
        filled.clickhouse.rows(
            "CREATE OR REPLACE VIEW events AS SELECT * FROM learning_events UNION ALL SELECT * FROM operational_events"
        )
        assert elsewhere(FIRST, DAY, query) == before
    finally:
        for table in ("learning_events", "operational_events"):
            filled.clickhouse.rows(f"ALTER TABLE {table} DROP COLUMN extra, DROP COLUMN text")
        filled.clickhouse.rows(
            "CREATE OR REPLACE VIEW events AS SELECT * FROM learning_events UNION ALL SELECT * FROM operational_events"
        )


def test_a_days_file_is_the_same_whatever_range_is_asked(partner: Partner, filled: Store) -> None:
    alone = partner.archive(day_before(2), day_before(2)).day_bytes(day_before(2))
    assert partner.archive(FIRST, DAY).day_bytes(day_before(2)) == alone


def test_dimensions_that_change_change_nothing(
    partner: Partner, filled: Store, elsewhere: Callable[[date, date, str], bytes]
) -> None:
    before = {query: partner.archive(DAY, DAY, query=query).content for query in FORMATS}
    filled.clickhouse.rows(
        "ALTER TABLE learning_events UPDATE user = '{}', flags = 'found', stored_at = now64(3) WHERE 1 "
        "SETTINGS mutations_sync = 2"
    )
    for query in FORMATS:
        assert elsewhere(DAY, DAY, query) == before[query]


def test_a_revision_makes_the_day_anew(partner: Partner, filled: Store, registry: Engine) -> None:
    before = partner.post(FIRST, DAY)
    filled.clickhouse.rows("ALTER TABLE learning_events DELETE WHERE batch_id = 'b1' SETTINGS mutations_sync = 2")
    assert partner.post(FIRST, DAY).content == before.content
    Revisions(registry).add(D001, None, DAY, DAY, "a person was erased")
    after = partner.post(FIRST, DAY)
    assert after.headers["etag"] != before.headers["etag"]
    assert after.headers["content-disposition"] != before.headers["content-disposition"]
    assert all(line["receipt"]["batch_id"] != "b1" for line in partner.archive(DAY, DAY).lines(DAY))
    days = partner.manifest(FIRST, DAY)["days"]
    assert [note["reason"] for note in days[2]["notes"]] == ["a person was erased"]
    assert "notes" not in days[1]
    stale = partner.get(FIRST, DAY, headers={"range": "bytes=0-9", "if-range": before.headers["etag"]})
    assert stale.status_code == 200
    assert stale.content == after.content


@pytest.mark.parametrize("retention_days", [0, 2])
async def test_the_files_of_days_that_are_revised_or_too_old_are_removed(
    partner: Partner, filled: Store, registry: Engine, retention_days: int
) -> None:
    settings = partner.api.settings
    partner.archive(FIRST, DAY)
    Revisions(registry).add(D001, HASH[:32], day_before(2), DAY, "erased")
    partner.archive(DAY, DAY)
    if retention_days:
        Datasets(registry).declare(Dataset("D001", "tags", retention_days=retention_days))
    access = ExhaustAccess(settings)
    keeper = Keeper(settings, access, look_s=0.05)
    keeper.start()
    try:
        kept = {f"{DAY}.2.json"} if retention_days else {f"{FIRST}.0.json", f"{DAY}.2.json"}
        for _ in range(100):
            if {path.name for path in settings.exhaust_folder.glob("??/*/*.json")} == kept:
                break
            await asyncio.sleep(0.05)
        assert {path.name for path in settings.exhaust_folder.glob("??/*/*.json")} == kept
        assert len(list(settings.exhaust_folder.glob("??/*/*.zip"))) == len(kept)
    finally:
        await keeper.close()
        access.close()


def test_a_dataset_declared_anew_is_another_download(partner: Partner, filled: Store, registry: Engine) -> None:
    before = partner.post(DAY, DAY)
    Datasets(registry).declare(Dataset("D001", "tags", columns=("eid", "channel")))
    partner.api.call(lambda: None)
    import time

    time.sleep(1.05)
    after = partner.archive(DAY, DAY)
    assert partner.post(DAY, DAY).headers["etag"] != before.headers["etag"]
    assert set(after.lines(DAY)[0]) == {"received_at", "batch_id", "event_index", "eid", "channel"}


def test_the_manifest_tells_of_every_byte(partner: Partner, filled: Store) -> None:
    import hashlib

    archive = partner.archive(FIRST, DAY)
    days = partner.manifest(FIRST, DAY)["days"]
    assert [day["date"] for day in days] == [str(day_before(number)) for number in (3, 2, 1)]
    for told in days:
        day = date.fromisoformat(told["date"])
        packed = archive.day_bytes(day)
        assert (told["bytes"], told["sha256"]) == (len(packed), hashlib.sha256(packed).hexdigest())
        assert told["events"] == len(archive.lines(day)) == sum(file["events"] for file in told["files"])
        files = archive.files(day)
        assert [file["name"] for file in told["files"]] == list(files)
        for file in told["files"]:
            assert file["sha256"] == hashlib.sha256(files[file["name"]]).hexdigest()
            assert file["bytes"] == len(files[file["name"]])


def test_counts_are_those_of_the_accounting(partner: Partner, store: Store) -> None:
    for number in range(50):
        store.put(DAY, number * 1_700, table="operational_events" if number % 3 else "learning_events")
    store.close_days()
    ((stored,),) = store.clickhouse.rows(
        "SELECT sum(stored) FROM accounting WHERE toDate(minute) = {day:Date}", {"day": DAY}
    )
    assert partner.manifest(DAY, DAY)["days"][0]["events"] == stored == 50


def test_a_day_removed_for_want_of_room_comes_back_the_same(partner: Partner, filled: Store) -> None:
    before = partner.post(FIRST, DAY)
    assert tidy(partner.api.settings.exhaust_folder, 1) == (0, 0)
    assert "content-length" not in partner.http.head(f"{partner.path}/{FIRST}/{DAY}", headers=partner.bearer).headers
    after = partner.post(FIRST, DAY)
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])


def test_a_day_that_cannot_be_made_the_same_again_is_another(partner: Partner, filled: Store) -> None:
    """As with other versions of zlib."""
    before = partner.post(FIRST, DAY)
    folder = partner.api.settings.exhaust_folder
    tidy(folder, 1)
    (gone,) = folder.glob(f"??/*/{DAY}.0.gone")
    facts = json.loads(gone.read_text())
    gone.write_text(json.dumps({**facts, "sha256": "0" * 64}))
    with pytest.raises(httpx.RemoteProtocolError):
        partner.post(FIRST, DAY)
    after = partner.post(FIRST, DAY)
    assert after.headers["etag"] != before.headers["etag"]
    days = partner.manifest(FIRST, DAY)["days"]
    assert ["notes" in day for day in days] == [False, False, True]
    assert "other versions" in days[2]["notes"][0]["reason"]
    stale = partner.get(FIRST, DAY, headers={"range": "bytes=0-9", "if-range": before.headers["etag"]})
    assert (stale.status_code, stale.content) == (200, after.content)
