"""Data sync from a configured source: its rows, their changes and what it has no more get into stored events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.jobs import SOURCED, all_copies, begin_sync, done, ended, job_of, synced, wait_job
from tests.integration.outside import Event, Outside, Row, make_event, unique


class Source:
    """The folder from which the shared pipeline reads course batches."""

    def __init__(self, outside: Outside) -> None:
        self._sources = Path(str(outside.pipeline.settings["dimension_sources"]))
        self.folder = self._sources.with_name("rows")
        self._file = self.folder / "all.jsonl"

    def write(self, rows: Mapping[str, Row], rest: str = "") -> None:
        """Replace all rows; ``rest`` stands behind them as it is."""
        made = self._file.with_name(".new")
        lines = [json.dumps({"id": id_, "attributes": attributes}) + "\n" for id_, attributes in rows.items()]
        made.write_text("".join(lines) + rest)
        made.rename(self._file)

    def configure(self, text: str) -> str:
        """Write the file of sources; return what it was."""
        before = self._sources.read_text()
        self._sources.write_text(text)
        return before


@pytest.fixture(scope="module")
def source(outside: Outside) -> Source:
    return Source(outside)


class Courses:
    """Three course batches that the source has, and an event of each in both event tables, stored before.

    Each test leaves the source whole, and the batches otherwise as it likes.
    """

    def __init__(self, outside: Outside, source: Source) -> None:
        self._outside = outside
        self.ids = [unique("batch") for _ in range(3)]
        self.rows: dict[str, Row] = {id_: {"name": f"Course {number}"} for number, id_ in enumerate(self.ids)}
        events = [_event(eid, id_) for id_ in self.ids for eid in ("INTERACT", "LOG")]
        self.mids = [event["mid"] for event in events]
        outside.settle([outside.send(events)])
        assert self.seen() == [({}, "missing")] * 3
        source.write(self.rows)
        job = synced(outside, SOURCED, force=True)  # of what the test before had there, nothing is left
        assert job["changed"]["dimensions"] >= 3
        assert self.seen() == [(self.rows[id_], "found") for id_ in self.ids]

    def seen(self) -> list[tuple[Row, str]]:
        """Return each batch's copy and flag, which all its events share."""
        rows = list(all_copies(self._outside, *self.mids).values())
        found = [(row["batch"], row["flags"]["batch"]) for row in rows]
        assert found[::2] == found[1::2]
        return found[::2]

    def known(self) -> list[Row]:
        """Return what ClickHouse has of the batches."""
        sql = "SELECT * FROM dimensions WHERE type = {type:String} AND id IN {ids:Array(String)} ORDER BY id"
        return self._outside.rows(sql, type=SOURCED, ids=self.ids)


def _event(eid: str, batch: str) -> Event:
    event = make_event(eid, did=unique("d"))
    event["context"]["cdata"] = [{"type": "CourseBatch", "id": batch}]
    return event


@pytest.fixture(scope="module")
def courses(outside: Outside, source: Source) -> Iterator[Courses]:
    before = source.configure(f'[{SOURCED}]\nkind = "file"\npath = "rows"\n')
    yield Courses(outside, source)
    source.configure(before)


def test_changed_rows_and_missing_ones_get_into_stored_events(
    outside: Outside, source: Source, courses: Courses
) -> None:
    first, second, third = courses.ids
    source.write({first: {"name": "Anew"}, second: courses.rows[second]})
    job = synced(outside, SOURCED)
    assert job["changed"] == {"dimensions": 2, "events": 4}
    report = job["report"]["source"]
    assert (report["rows"], report["gone"], report["published"], report["same"]) == (2, 1, 2, 1)
    assert courses.seen() == [({"name": "Anew"}, "found"), (courses.rows[second], "found"), ({}, "missing")]
    assert {row["id"] for row in courses.known() if row["deleted"]} == {third}


def test_a_source_that_breaks_changes_nothing_and_is_tried_again(
    outside: Outside, source: Source, courses: Courses
) -> None:
    before = courses.seen(), courses.known()
    first, second, _ = courses.ids
    source.write({first: {"name": "Half"}}, f'{{"id": "{second}", "attri')
    job_id = begin_sync(outside, SOURCED)
    job = wait_job(outside, job_id, "was put off", lambda job: job.get("error") is not None)
    assert (job["status"], job["error"][:11]) == ("queued", "SOURCE_CUT:")
    assert (courses.seen(), courses.known()) == before
    rows = courses.rows | {first: {"name": "Whole"}}
    source.write(rows)  # what was gone before is there again
    assert "error" not in done(outside, job_id)
    assert courses.seen() == [(rows[id_], "found") for id_ in courses.ids]


def test_a_folder_that_is_gone_deletes_nothing(outside: Outside, source: Source, courses: Courses) -> None:
    before = courses.seen(), courses.known()
    away = source.folder.rename(source.folder.with_name("rows elsewhere"))
    try:
        job_id = begin_sync(outside, SOURCED)
        job = wait_job(outside, job_id, "was put off", lambda job: job.get("error") is not None)
        assert job["error"].startswith("SOURCE_UNAVAILABLE:")
        assert outside.operate("POST", f"/v1/sync/{job_id}/cancel").status_code == 202
        assert job_of(outside, job_id)["status"] == "cancelled"
    finally:
        away.rename(source.folder)
    assert (courses.seen(), courses.known()) == before


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (f'[{SOURCED}]\nkind = "file"\npath = "rows"\ncolour = "red"\n', "SOURCE_CONFIG:"),
        (f"[{SOURCED}\n", "SOURCE_CONFIG:"),
    ],
)
def test_a_file_of_sources_that_is_wrong_fails_at_once(
    outside: Outside, source: Source, courses: Courses, config: str, code: str
) -> None:
    before = courses.seen(), courses.known()
    configured = source.configure(config)
    try:
        job = ended(outside, begin_sync(outside, SOURCED))
    finally:
        source.configure(configured)
    assert (job["status"], job["error"][: len(code)]) == ("failed", code)
    assert (courses.seen(), courses.known()) == before


def test_an_export_that_is_empty_deletes_nobody(outside: Outside, source: Source, courses: Courses) -> None:
    before = courses.seen(), courses.known()
    source.write({})
    job = ended(outside, begin_sync(outside, SOURCED))
    source.write(courses.rows)
    assert (job["status"], job["error"][:14]) == ("failed", "SOURCE_SHRUNK:")
    assert (courses.seen(), courses.known()) == before


def test_two_syncs_of_the_same_objects_at_once_are_both_done(
    outside: Outside, source: Source, courses: Courses
) -> None:
    rows = {id_: {"name": f"Later {number}"} for number, id_ in enumerate(courses.ids)}
    source.write(rows)
    job_ids = [begin_sync(outside, SOURCED, *courses.ids) for _ in range(2)]
    jobs = [done(outside, job_id) for job_id in job_ids]
    assert [job["changed"]["dimensions"] for job in jobs if "dimensions" in job["changed"]] == [3]
    assert sum(job["changed"]["events"] for job in jobs) == 6
    assert courses.seen() == [(rows[id_], "found") for id_ in courses.ids]
