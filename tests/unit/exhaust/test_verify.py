import gzip
import io
import json
import random
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta

import pytest

from midstream.exhaust.findings import MAX_FINDINGS, Report
from midstream.exhaust.hours import MAX_LINE_BYTES
from midstream.exhaust.manifest import ManifestDay, Note, manifest, read_manifest
from midstream.exhaust.names import hour_name
from midstream.exhaust.verify import verify
from tests.support.exhaust import (
    Day,
    Hour,
    csv_hour,
    epoch_ms,
    event_line,
    hour_lines,
    json_hour,
    make_archive,
    make_contents,
    make_day,
    make_hour,
    parquet_hour,
    text_of,
)

D1 = date(2026, 11, 20)
D2, D3 = D1 + timedelta(days=1), D1 + timedelta(days=2)
DAYS = [
    make_day(D1, [json_hour(D1, 0, 4), json_hour(D1, 10, 7), json_hour(D1, 23, 1)]),
    make_day(D2, []),
    make_day(D3, [json_hour(D3, 5, 2)]),
]
ARCHIVE = make_archive(DAYS)
TEN = DAYS[0].facts.files[1].name


def manifest_of(days: Sequence[Day]) -> tuple[ManifestDay, ...]:
    return read_manifest(json.dumps(manifest(day.facts for day in days)))


def judged(archive: bytes, said: tuple[ManifestDay, ...] | None = None) -> Report:
    return verify(io.BytesIO(archive), said, lambda count: None)


def lines_of(report: Report) -> list[str]:
    return [finding.line() for finding in report.findings]


def only(report: Report) -> str:
    (line,) = lines_of(report)
    return line


def judged_hour(hour: Hour, columns: tuple[str, ...] = (), kind: str = "jsonl") -> Report:
    """Verify a download of one day that has one hour; whoever made it told its hashes truly."""
    day = make_day(D1, [hour])
    contents = make_contents([day.facts], kind, columns)  # type: ignore[arg-type]
    return judged(make_archive([day], contents.as_comment()), manifest_of([day]))


class TestProven:
    @pytest.mark.parametrize("said", [None, manifest_of(DAYS)], ids=["comment", "manifest"])
    def test_a_whole_download(self, said: tuple[ManifestDay, ...] | None) -> None:
        report = judged(ARCHIVE, said)
        assert lines_of(report) == []
        assert report.proven
        assert (report.dataset, report.days, report.events, report.bytes) == ("D001", 3, 14, len(ARCHIVE))

    def test_one_day_without_events(self) -> None:
        assert judged(make_archive([DAYS[1]])).as_dict() == {
            "proven": True,
            "dataset": "D001",
            "resource": make_contents([DAYS[1].facts]).resource,
            "days": 1,
            "events": 0,
            "bytes": len(make_archive([DAYS[1]])),
            "findings": [],
            "more_findings": 0,
            "notes": [],
        }

    def test_the_progress_is_of_both_readings(self) -> None:
        told: list[int] = []
        verify(io.BytesIO(ARCHIVE), None, told.append)
        days = sum(len(day.data) for day in DAYS)
        files = sum(file.bytes for day in DAYS for file in day.facts.files)
        assert sum(told) == days + files <= 2 * len(ARCHIVE)

    def test_chosen_columns_need_no_receipt(self) -> None:
        hour = json_hour(D1, 3, [b'{"eid": "LOG"}'] * 3)
        assert judged_hour(hour, columns=("eid",)).proven
        assert "line 1: the event has no receipt; 2 more such lines" in only(judged_hour(hour))

    @pytest.mark.parametrize(
        "more",
        [{"receipt": 5}, {"text": "\ud800"}, {"large": 10**400}, {"deep": json.loads("[" * 250 + "]" * 250)}],
        ids=["own-receipt", "surrogate", "large", "deep"],
    )
    def test_what_an_event_may_hold(self, more: dict[str, object]) -> None:
        line = event_line(epoch_ms(D1, 3, 7), "b", 0)
        line = b"{" + json.dumps(more).encode()[1:-1] + b"," + line[1:]
        assert lines_of(judged_hour(json_hour(D1, 3, [line]))) == []

    def test_revisions_are_notes(self) -> None:
        facts = replace(DAYS[0].facts, notes=(Note("2026-11-25T00:00:00Z", "erased"),))
        report = judged(ARCHIVE, manifest_of([replace(DAYS[0], facts=facts), *DAYS[1:]]))
        assert report.proven
        assert report.notes == ["2026-11-20 was made anew at 2026-11-25T00:00:00Z: erased"]

    def test_csv(self) -> None:
        rows = [["LOG", "a"], ["LOG", 'two\nlines, "quoted"'], ["LOG", ""]]
        report = judged_hour(csv_hour(D1, 3, rows), kind="csv")
        assert lines_of(report) == []
        assert report.events == 3

    def test_parquet(self) -> None:
        report = judged_hour(parquet_hour(D1, 3, 25_000), kind="parquet")
        assert lines_of(report) == []
        assert report.events == 25_000


class TestArchive:
    @pytest.mark.parametrize("data", [b"", b"x", b'{"params": {"err": "LOGIN_FAILED"}}', gzip.compress(b"x" * 99)])
    def test_no_zip_at_all(self, data: bytes) -> None:
        assert only(judged(data)) == "archive: it is no zip archive"

    def test_cut_short_anywhere(self) -> None:
        """Also where the directory of a day within, which is a zip itself, is at the end of what is left."""
        within = {at + 22 for at in range(len(ARCHIVE) - 22) if ARCHIVE[at : at + 4] == b"PK\x05\x06"}
        assert len(within) == 4
        for length in range(4, len(ARCHIVE)):
            lines = lines_of(judged(ARCHIVE[:length]))
            assert lines, length
            assert length in within or lines == [
                f"archive: it is cut short or altered: no sound directory at the end, at byte {length}; "
                "a download can be resumed from there"
            ]

    def test_bytes_too_many(self) -> None:
        for archive in (b"x" + ARCHIVE, ARCHIVE + b"x", ARCHIVE + ARCHIVE):
            assert not judged(archive).proven

    def test_every_byte_counts(self) -> None:
        """Only the names of dataset and resource are nowhere else in the archive."""
        comment = ARCHIVE.index(b'{"dataset"')
        free = range(comment, ARCHIVE.index(b'"from"', comment))
        for at in range(len(ARCHIVE)):
            for bits in (0x01, 0x20, 0x80):
                altered = bytearray(ARCHIVE)
                altered[at] ^= bits
                assert not judged(bytes(altered)).proven or at in free, at

    def test_a_byte_of_an_hour_altered(self) -> None:
        altered = bytearray(ARCHIVE)
        altered[ARCHIVE.index(gzip_of(TEN)) + 40] ^= 4
        lines = lines_of(judged(bytes(altered), manifest_of(DAYS)))
        assert lines[0].startswith("aggregated-2026-11-20.gz: its CRC-32 is ")
        assert lines[1].startswith("aggregated-2026-11-20.gz: its SHA-256 is ")
        assert all("aggregated-2026-11-20.gz" in line for line in lines)
        assert any(line.startswith(f"aggregated-2026-11-20.gz: {TEN}: it cannot be read") for line in lines), lines

    def test_a_byte_between_the_data_altered(self) -> None:
        at = ARCHIVE.index(b"PK\x07\x08") + 1
        altered = bytearray(ARCHIVE)
        altered[at] ^= 1
        assert only(judged(bytes(altered))) == (
            f"aggregated-2026-11-20.gz: byte {at} of the archive differs from what a download has there, "
            "around this day's data"
        )

    def test_a_byte_of_the_directory_altered(self) -> None:
        at = ARCHIVE.index(b"PK\x01\x02", ARCHIVE.rindex(b"PK\x07\x08")) + 5
        altered = bytearray(ARCHIVE)
        altered[at] ^= 1
        assert only(judged(bytes(altered))) == (
            f"archive: byte {at} differs from what a download has there, in the directory at the end"
        )

    def test_packed_anew(self) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as old, zipfile.ZipFile(out, "w") as new:
            new.comment = old.comment
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
        assert "it was altered or packed anew" in only(judged(out.getvalue()))

    def test_without_a_comment(self) -> None:
        archive = make_archive(DAYS, b"")
        for said in (None, manifest_of(DAYS)):
            report = judged(archive, said)
            assert only(report).startswith("archive: its comment does not say what it holds")
            assert report.events == 14


class TestDays:
    def test_a_day_is_missing(self) -> None:
        whole = make_contents([day.facts for day in DAYS]).as_comment()
        assert only(judged(make_archive([DAYS[0], DAYS[2]], whole))) == "aggregated-2026-11-21.gz: this day is missing"
        assert lines_of(judged(make_archive([DAYS[0], DAYS[2]]), manifest_of(DAYS))) == [
            "archive: its comment does not name each day from 2026-11-20 to 2026-11-22",
            "aggregated-2026-11-21.gz: this day is missing",
        ]

    def test_the_manifest_has_a_day_more(self) -> None:
        assert only(judged(make_archive(DAYS[:2]), manifest_of(DAYS))) == (
            "aggregated-2026-11-22.gz: this day is missing"
        )

    def test_a_day_that_does_not_belong_here(self) -> None:
        comment = make_contents([day.facts for day in DAYS[:2]]).as_comment()
        assert only(judged(make_archive(DAYS, comment))) == (
            "aggregated-2026-11-22.gz: this day does not belong to the download"
        )

    def test_days_out_of_order_and_twice(self) -> None:
        comment = make_contents([day.facts for day in DAYS]).as_comment()
        for days in ([DAYS[1], DAYS[0], DAYS[2]], [*DAYS, DAYS[2]]):
            assert only(judged(make_archive(days, comment))) == (
                "archive: its days are not in order, or one is there twice"
            )

    def test_a_foreign_file(self) -> None:
        comment = make_contents([DAYS[0].facts]).as_comment()
        archive = make_archive([DAYS[0]], comment).replace(b"aggregated-2026-11-20.gz", b"aggregated-2026-11-20.zz")
        assert lines_of(judged(archive)) == [
            "archive: it has a file that no download has: aggregated-2026-11-20.zz",
            "aggregated-2026-11-20.gz: this day is missing",
        ]

    def test_a_day_of_another_dataset(self) -> None:
        other = make_day(D1, [json_hour(D1, 10, hour_lines(D1, 10, 12))])
        comment = make_contents([day.facts for day in DAYS]).as_comment()
        lines = lines_of(judged(make_archive([other, *DAYS[1:]], comment), manifest_of(DAYS)))
        assert lines[0].endswith(f"it has {len(other.data):,} bytes, {len(DAYS[0].data):,} are named")
        assert other.facts.sha256 in lines[1]
        assert DAYS[0].facts.sha256 in lines[1]
        assert all(line.startswith("aggregated-2026-11-20.gz") for line in lines)
        assert sum("the manifest names this file" in line for line in lines) == 2

    def test_the_manifest_of_another_dataset(self) -> None:
        other = [make_day(D1, [json_hour(D1, 0, 4)]), *DAYS[1:]]
        lines = lines_of(judged(ARCHIVE, manifest_of(other)))
        assert lines[0] == "aggregated-2026-11-20.gz: the manifest and the archive's comment differ about this day"
        assert f"aggregated-2026-11-20.gz: {TEN}: the manifest does not name this file" in lines

    def test_a_day_that_is_no_zip(self) -> None:
        broken = replace(DAYS[0], data=b"no zip")
        lines = lines_of(judged(make_archive([broken]), manifest_of([DAYS[0]])))
        assert lines[-1] == "aggregated-2026-11-20.gz: it is no sound zip archive: File is not a zip file"


class TestFiles:
    @pytest.mark.parametrize(
        ("hours", "wrong"),
        [
            ([json_hour(D1, 3, 2), json_hour(D1, 2, 2)], "the hours are not in order, or one is there twice"),
            ([json_hour(D2, 3, 2)], "it belongs to another day"),
            ([json_hour(D1, 3, 2, name="notes.txt")], "no file of a day is called so"),
            ([csv_hour(D1, 3, [["a", "b"]])], "the download is jsonl, this file is csv"),
        ],
        ids=["order", "day", "name", "format"],
    )
    def test_a_file_that_does_not_belong_here(self, hours: list[Hour], wrong: str) -> None:
        report = judged(make_archive([make_day(D1, hours)]))
        assert lines_of(report)[0] == f"aggregated-2026-11-20.gz: {hours[-1].facts.name}: {wrong}"

    def test_a_line_too_many(self) -> None:
        """Whoever packed the day has hashed what is there, but counted otherwise."""
        hour = json_hour(D1, 10, 4, events=3)
        day = make_day(D1, [hour])
        lines = lines_of(judged(make_archive([day]), manifest_of([day])))
        assert lines[0] == "aggregated-2026-11-20.gz: it has 4 events, 3 are named"
        assert lines[1].startswith(f"aggregated-2026-11-20.gz: {hour.facts.name}: it has 4 events, ")
        assert len(lines) == 2

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (lambda lines: [*lines, lines[-1]], "line 8: the event is there twice"),
            (
                lambda lines: [*lines[:3], lines[5], lines[4], lines[6]],
                "line 5: the event is not in the order of receipt",
            ),
            (lambda lines: [*lines, *lines[:2]], "line 8: the event is not in the order of receipt; 1 more such lines"),
            (lambda lines: [*lines, b""], "line 8: the line is no JSON"),
            (lambda lines: [*lines, b"[1]"], "line 8: the line is no JSON object"),
            (lambda lines: [*lines, b'{"eid": NaN}'], "line 8: the line is no JSON"),
            (lambda lines: [*lines, b"[" * 100_000], "line 8: the line is no JSON"),
            (lambda lines: [*lines, b'{"eid": "\xff"}'], "line 8: the line is no JSON"),
            (lambda lines: [*lines, b'{"receipt": {"batch_id": "b"}}'], "line 8: the event has no receipt"),
            (
                lambda lines: [*lines, event_line(epoch_ms(D1, 3), "z", 0)],
                "line 8: the event was not received in this hour",
            ),
            (
                lambda lines: [*lines, event_line(epoch_ms(D2, 2), "z", 0)],
                "line 8: the event was not received in this hour",
            ),
            (
                lambda lines: [*lines, lines[-1].replace(b"02:00", b"02:60")],
                "line 8: the event was not received in this hour",
            ),
            (
                lambda lines: lines[3:],
                f"line 1: the first event was received at {epoch_ms(D1, 2, 1007)}, the file's name has another time",
            ),
        ],
    )
    def test_lines_that_are_wrong(self, change: Callable[[list[bytes]], list[bytes]], wrong: str) -> None:
        hour = json_hour(D1, 2, change(hour_lines(D1, 2, 7)))
        assert only(judged_hour(hour)) == f"aggregated-2026-11-20.gz: {hour.facts.name}: {wrong}"

    @pytest.mark.parametrize(
        ("change", "wrong"),
        [
            (lambda data: data[:-5], "the gzip stream is cut short"),
            (lambda data: data + b"more", "the gzip stream is followed by something else"),
            (lambda data: b"{}\n" * 30, "the gzip stream is corrupt: "),
            (lambda data: gzip.compress(gzip.decompress(data)[:-1]), "line 7: the last line has no end"),
        ],
        ids=["short", "more", "plain", "no-end"],
    )
    def test_gzip_that_is_wrong(self, change: Callable[[bytes], bytes], wrong: str) -> None:
        good = json_hour(D1, 2, 7)
        report = judged_hour(make_hour(good.facts.name, change(good.data), 7))
        assert lines_of(report)[0].startswith(f"aggregated-2026-11-20.gz: {good.facts.name}: {wrong}")

    def test_a_line_that_is_too_long(self) -> None:
        lines = [*hour_lines(D1, 2, 1), b" " * (MAX_LINE_BYTES + 1)]
        assert "line 2: the line has more than 16777216 bytes" in only(judged_hour(json_hour(D1, 2, lines)))

    @pytest.mark.parametrize(
        ("text", "events", "wrong"),
        [
            (b"a,b\n1,2\n3\n", 2, "line 3: the row has not the 2 cells of the header row"),
            (b'a,b\n1,"2\n3,4\n', 1, "line 3: the CSV cannot be read on: unexpected end of data"),
            (b"", 0, "line 1: there is no header row"),
            (b"a,b\n1,2", 1, "line 2: the last line has no end"),
        ],
    )
    def test_csv_that_is_wrong(self, text: bytes, events: int, wrong: str) -> None:
        name = hour_name(D1, 3, epoch_ms(D1, 3), "csv")
        report = judged_hour(make_hour(name, gzip.compress(text), events), kind="csv")
        assert lines_of(report)[0] == f"aggregated-2026-11-20.gz: {name}: {wrong}"

    def test_rows_too_many(self) -> None:
        for hour, kind in ((csv_hour(D1, 3, [["a", "b"]] * 3, 2), "csv"), (parquet_hour(D1, 3, 3, 2), "parquet")):
            lines = lines_of(judged_hour(hour, kind=kind))
            assert lines[0] == "aggregated-2026-11-20.gz: it has 3 events, 2 are named"

    @pytest.mark.parametrize("data", [b"", b"no Parquet", parquet_hour(D1, 3, 1000).data[:-40] + b"PAR1"])
    def test_parquet_that_is_wrong(self, data: bytes) -> None:
        name = hour_name(D1, 3, epoch_ms(D1, 3), "parquet")
        report = judged_hour(make_hour(name, data, 0), kind="parquet")
        assert lines_of(report)[0].startswith(f"aggregated-2026-11-20.gz: {name}: the Parquet file cannot be read: ")


def test_findings_are_bounded() -> None:
    report = Report()
    for index in range(MAX_FINDINGS + 5):
        report.add("here", str(index))
    assert (len(report.findings), report.dropped, report.proven) == (MAX_FINDINGS, 5, False)
    assert report.as_dict()["more_findings"] == 5


def test_memory_does_not_grow_with_the_file() -> None:
    """A day of 24 MB, whose hour inflates to 40 MB, takes less than 6 MB: pieces of it, some lines."""
    noise = random.Random(1)
    lines = [
        event_line(epoch_ms(D1, 3, 7 + index), "b", index, text=noise.randbytes(6_000).hex()) for index in range(3_300)
    ]
    name = hour_name(D1, 3, epoch_ms(D1, 3, 7))
    hour = make_hour(name, gzip.compress(text_of(lines), 1, mtime=0), len(lines))
    archive = io.BytesIO(make_archive([make_day(D1, [hour])]))
    del lines
    assert archive.getbuffer().nbytes > 20_000_000
    tracemalloc.start()
    try:
        report = verify(archive, None, lambda count: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines_of(report) == []
    assert peak < 6_000_000


def gzip_of(name: str) -> bytes:
    """Return the file of the first day that is called so."""
    with zipfile.ZipFile(io.BytesIO(DAYS[0].data)) as inner:
        return inner.read(name)
