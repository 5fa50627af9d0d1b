import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from midstream.exhaust.manifest import (
    MAX_COMMENT_BYTES,
    Contents,
    DayFacts,
    FileFacts,
    ManifestDay,
    Note,
    manifest,
    read_comment,
    read_manifest,
    read_sidecar,
    short_days,
)

HASH = "0123456789abcdef" * 4
FILES = (
    FileFacts("data-exhaust-05.log-2026-11-20-1795150800123.gz", 3, 300, HASH),
    FileFacts("data-exhaust-07.log-2026-11-20-1795158000123.gz", 4, 400, HASH[::-1]),
)
DAY = DayFacts(date(2026, 11, 20), 7, 1000, HASH, 0xFFFFFFFF, FILES)
EMPTY = DayFacts(date(2026, 11, 21), 0, 22, HASH, 0)
REVISED = replace(DAY, date=date(2026, 11, 22), notes=(Note("2026-11-25T10:00:00Z", "an erase"),))
CONTENTS = Contents("D001", "ab" * 20, DAY.date, EMPTY.date, "jsonl", short_days([DAY, EMPTY]))


def test_the_manifest_is_as_promised() -> None:
    assert manifest([DAY, REVISED]) == {
        "days": [
            {
                "date": "2026-11-20",
                "events": 7,
                "bytes": 1000,
                "sha256": HASH,
                "files": [
                    {"name": FILES[0].name, "events": 3, "bytes": 300, "sha256": HASH},
                    {"name": FILES[1].name, "events": 4, "bytes": 400, "sha256": HASH[::-1]},
                ],
            },
            {
                **manifest([DAY])["days"][0],
                "date": "2026-11-22",
                "notes": [{"at": "2026-11-25T10:00:00Z", "reason": "an erase"}],
            },
        ]
    }


def test_a_manifest_is_read() -> None:
    assert read_manifest(json.dumps(manifest([DAY, EMPTY, REVISED]))) == tuple(
        ManifestDay(day.date, day.events, day.bytes, day.sha256, day.files, day.notes) for day in (DAY, EMPTY, REVISED)
    )


@pytest.mark.parametrize("day", [DAY, EMPTY, REVISED])
def test_a_sidecar_is_read(day: DayFacts) -> None:
    assert read_sidecar(json.dumps(day.as_dict())) == day


def test_the_comment_is_as_promised() -> None:
    assert json.loads(CONTENTS.as_comment()) == {
        "dataset": "D001",
        "resource": "ab" * 20,
        "from": "2026-11-20",
        "to": "2026-11-21",
        "format": "jsonl",
        "days": [
            {"date": "2026-11-20", "events": 7, "bytes": 1000, "sha256": HASH},
            {"date": "2026-11-21", "events": 0, "bytes": 22, "sha256": HASH},
        ],
    }


@pytest.mark.parametrize("contents", [CONTENTS, replace(CONTENTS, columns=("eid", "mid"), format="csv")])
def test_a_comment_is_read(contents: Contents) -> None:
    assert read_comment(contents.as_comment()) == contents


def test_a_comment_of_31_days_is_short() -> None:
    days = [replace(DAY, date=DAY.date + timedelta(days=index), events=10**12, bytes=10**12) for index in range(31)]
    assert len(replace(CONTENTS, days=short_days(days)).as_comment()) < MAX_COMMENT_BYTES / 10


def test_a_comment_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="65535 is the most"):
        replace(CONTENTS, columns=("c" * 65_000,) * 2).as_comment()


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda said: said.pop(name)


def having(**members: Any) -> Callable[[dict[str, Any]], object]:
    return lambda said: said.update(members)


def in_file(**members: Any) -> Callable[[dict[str, Any]], object]:
    return lambda said: said["files"][1].update(members)


BROKEN_DAYS = [
    *(without(name) for name in ("date", "events", "bytes", "sha256", "files")),
    *(having(date=value) for value in (None, 20261120, "20261120", "2026-11-31", "2026-W47-5", "2026-11-20T00:00")),
    *(having(events=value) for value in (-1, 7.0, "7", True, None, 8)),
    *(having(bytes=value) for value in (-1, 1.5, "1")),
    *(having(sha256=value) for value in ("", HASH[1:], HASH.upper(), "g" * 64, HASH + "\n", 5)),
    *(having(files=value) for value in (None, {}, [5], [{}], "")),
    *(having(notes=value) for value in (None, {}, ["erased"], [{"at": "now"}], [{"at": 5, "reason": "r"}])),
    *(in_file(**{name: value}) for name in ("name", "events", "bytes", "sha256") for value in (None, [], -1.5)),
    in_file(events=5),
]


@pytest.mark.parametrize("breaks", BROKEN_DAYS)
def test_a_broken_day(breaks: Callable[[dict[str, Any]], object]) -> None:
    """In a sidecar and in a manifest."""
    said = json.loads(json.dumps(DAY.as_dict()))
    breaks(said)
    with pytest.raises(ValueError, match="the sidecar"):
        read_sidecar(json.dumps(said))
    with pytest.raises(ValueError, match="the manifest: day 0"):
        read_manifest(json.dumps({"days": [said]}))


@pytest.mark.parametrize("breaks", [without("crc32"), having(crc32=-1), having(crc32=1 << 32), without("notes")])
def test_a_broken_sidecar(breaks: Callable[[dict[str, Any]], object]) -> None:
    said = DAY.as_dict()
    breaks(said)
    with pytest.raises(ValueError, match="the sidecar"):
        read_sidecar(json.dumps(said))


TEXTS = [b"", b"[]", b"5", b'"days"', b"{", b"\xff", b"[" * 100_000, b'{"days": NaN}', b"{}{}", b"1" * 5_000]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_that_is_something_else(text: bytes) -> None:
    for read in (read_sidecar, read_manifest, read_comment):
        with pytest.raises(ValueError):  # noqa: PT011  # json's own words
            read(text)


def test_a_sidecar_cut_short_anywhere() -> None:
    text = json.dumps(REVISED.as_dict())
    for length in range(len(text)):
        with pytest.raises(ValueError):  # noqa: PT011  # json's own words
            read_sidecar(text[:length])


@pytest.mark.parametrize("days", [[EMPTY, DAY], [DAY, DAY]])
def test_days_not_in_order(days: list[DayFacts]) -> None:
    with pytest.raises(ValueError, match="the manifest: the days are not in order"):
        read_manifest(json.dumps(manifest(days)))


@pytest.mark.parametrize(
    "breaks",
    [
        *(without(name) for name in ("dataset", "resource", "from", "to", "format", "days")),
        having(format="xml"),
        having(format=None),
        having(columns="eid"),
        having(columns=[5]),
        having(days={}),
        having(**{"from": "yesterday"}),
    ],
)
def test_a_broken_comment(breaks: Callable[[dict[str, Any]], object]) -> None:
    said = json.loads(CONTENTS.as_comment())
    breaks(said)
    with pytest.raises(ValueError, match="the comment"):
        read_comment(json.dumps(said).encode())
