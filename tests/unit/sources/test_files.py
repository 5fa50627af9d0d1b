"""Sources that are files and folders."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from midstream.dimensions import DimensionType
from midstream.sources.reading import Source

from .reads import configure, failure, read, taken

LINES = b'{"id":"a","attributes":{"x":1},"version":3}\n{"id":"b","attributes":{}}\n'
CSV = b"id,state\nc,Kerala\nd,\n"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return configure(tmp_path, '[content]\nkind = "file"\npath = "data"')[DimensionType.CONTENT]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file(source: Source, data: Path, pack: Callable[[bytes], bytes]) -> None:
    data.write_bytes(pack(LINES))
    rows, refused = taken(reading := source.read())
    assert [(row.type, row.id, row.attributes) for row in rows] == [("content", "a", '{"x":1}'), ("content", "b", "{}")]
    assert rows[0].version == 3
    assert rows[1].version > 1_600_000_000_000
    assert (refused, reading.whole, reading.watermark, source.incremental) == ([], True, None, False)
    data.write_bytes(pack(CSV))
    assert read(source) == {"c": {"state": "Kerala"}, "d": {}}


def test_a_folder_is_read_in_the_order_of_its_names(source: Source, data: Path) -> None:
    (data / "below").mkdir(parents=True)
    (data / "below" / "x.csv").write_bytes(b"id\nz\n")
    (data / "b.csv").write_bytes(CSV)
    (data / "a.jsonl.gz").write_bytes(gzip.compress(LINES))
    (data / "c.jsonl").write_bytes(b"")
    (data / ".d.jsonl.part").write_bytes(b'{"id"')
    rows, _ = taken(source.read())
    assert [row.id for row in rows] == ["a", "b", "c", "d"]


def test_an_empty_folder_has_no_rows(source: Source, data: Path) -> None:
    data.mkdir()
    assert read(source) == {}


def test_by_ids(source: Source, data: Path) -> None:
    data.write_bytes(LINES + b'{"id":"e","attributes":[]}\n{"id":"f","attributes":[]}\nnope\n')
    rows, refused = taken(reading := source.read(["a", "x", "e"], "ms:9"))
    assert [row.id for row in rows] == ["a"]
    assert [(one.place, one.code, one.id) for one in refused] == [
        ("data, line 3", "NOT_AN_OBJECT", "e"),
        ("data, line 5", "INVALID_JSON", None),
    ]
    assert reading.whole


def test_whose_a_refused_row_is(source: Source, data: Path) -> None:
    data.write_bytes(b'{"id":7,"attributes":{}}\n{"attributes":{}}\n{"id":"c","attributes":{},"version":-1}\n{"id\n')
    assert [one.id for one in taken(source.read())[1]] == ["7", "", "c", None]
    data.write_bytes(b"id,version\na,x\n,1\nb,1,2\n")
    assert [(one.place, one.id) for one in taken(source.read())[1]] == [
        ("data, line 2", "a"),
        ("data, line 3", ""),
        ("data, line 4", None),
    ]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("content", "line"),
    [(LINES + b'{"id":"c","attri', 3), (LINES[:-1] + b'\n"x', 3), (b"id,state,x\na,b,c\nd,e", 3)],
)
def test_half_a_line_is_half_a_file(
    source: Source, data: Path, content: bytes, line: int, pack: Callable[[bytes], bytes]
) -> None:
    data.write_bytes(pack(content))
    assert failure(source) == ("SOURCE_CUT", f"data, line {line}: the file ends in half a line")


@pytest.mark.parametrize("content", [LINES[:-1], CSV[:-1], CSV + b"e,f", LINES + b'{"id":"c"}'])
def test_a_last_line_without_an_end_that_is_whole_is_taken(source: Source, data: Path, content: bytes) -> None:
    data.write_bytes(content)
    assert len(taken(source.read())[0]) >= 2


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (gzip.compress(LINES * 1000)[:-20], "SOURCE_CUT", "data: the gzip file is corrupt"),
        (gzip.compress(LINES)[:-8] + b"\0" * 8, "SOURCE_UNREADABLE", "data: the gzip file is corrupt"),
        (b"<html><body>\n", "SOURCE_UNREADABLE", "neither JSON lines nor CSV"),
        (b'[{"id":"a"}]', "SOURCE_UNREADABLE", "neither JSON lines nor CSV"),
        (b"name,state\na,b\n", "SOURCE_UNREADABLE", "one of them `id`"),
    ],
)
def test_a_file_that_is_none(source: Source, data: Path, content: bytes, code: str, words: str) -> None:
    data.write_bytes(content)
    found, message = failure(source)
    assert found == code
    assert words in message


def test_nothing_there(source: Source, data: Path) -> None:
    assert failure(source) == ("SOURCE_UNAVAILABLE", f"{data}: there is no such file or folder")


def test_a_pipe_is_not_waited_for(source: Source, data: Path) -> None:
    os.mkfifo(data)
    assert failure(source) == ("SOURCE_UNAVAILABLE", f"{data}: neither a file nor a folder")


def test_a_file_that_is_written_meanwhile(source: Source, data: Path) -> None:
    data.write_bytes(LINES)
    blocks = iter(source.read())
    next(blocks)
    data.write_bytes(LINES * 2)
    with pytest.raises(Exception, match="was changed while it was read"):
        list(blocks)


def test_a_file_that_goes_meanwhile(source: Source, data: Path) -> None:
    data.mkdir()
    for name in ("a", "b"):
        (data / name).write_bytes(LINES)
    blocks = iter(source.read())
    next(blocks)
    (data / "b").unlink()
    with pytest.raises(Exception, match="No such file"):
        list(blocks)


def test_a_read_that_takes_too_long(tmp_path: Path, data: Path) -> None:
    text = '[user]\nkind = "file"\npath = "data"\nread_timeout_ms = 1'
    data.write_bytes(LINES * 20_000)
    assert failure(configure(tmp_path, text)[DimensionType.USER])[0] == "SOURCE_TIMEOUT"
