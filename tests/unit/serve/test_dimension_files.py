import gzip
import io
import json
from collections.abc import Sequence

import pytest

from midstream.dimension_files import read_items
from midstream.dimensions import Dimension, DimensionType, VersionClock
from midstream.row_files import FileError, Refusal


def read(data: bytes, limit: int = 10_000) -> tuple[list[Dimension], list[tuple[int, str]]]:
    rows: list[Dimension] = []
    refusals: list[tuple[int, str]] = []
    for items, _ in read_items(DimensionType.USER, io.BytesIO(data), VersionClock(), limit):
        for item in items:
            if isinstance(item, Refusal):
                refusals.append((item.line, item.code))
            else:
                rows.append(item)
    return rows, refusals


JSON_LINES = b'{"id":"a","attributes":{"x":1},"version":3}\nnope\n\n  {"id":"b","attributes":{}}'
CSV = '\ufeffid,version,state,note\na,3,Kerala,"two\nlines"\nb,,,\n\n,1,x,y\nc,x,y,z\nd,1\ne,4,é,"a ""q"""\n'.encode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_json_lines(pack: type[bytes]) -> None:
    rows, refusals = read(pack(JSON_LINES))
    assert [(row.id, row.attributes) for row in rows] == [("a", '{"x":1}'), ("b", "{}")]
    assert rows[0].version == 3
    assert refusals == [(2, "INVALID_JSON")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_csv(pack: type[bytes]) -> None:
    rows, refusals = read(pack(CSV))
    assert [(row.id, json.loads(row.attributes)) for row in rows] == [
        ("a", {"state": "Kerala", "note": "two\nlines"}),
        ("b", {}),
        ("e", {"state": "é", "note": 'a "q"'}),
    ]
    assert [row.version for row in rows if row.id != "b"] == [3, 4]
    assert rows[1].version > 1_600_000_000_000
    assert refusals == [(6, "INVALID_ID"), (7, "INVALID_VERSION"), (8, "INVALID_ROW")]


def test_a_csv_row_that_is_not_utf8_costs_only_itself() -> None:
    rows, refusals = read(b"id,a\nx,\xff\ny,ok\n\xfe,ok\n")
    assert [row.id for row in rows] == ["y"]
    assert refusals == [(2, "INVALID_UTF8"), (4, "INVALID_ID")]


def test_the_position_ends_at_the_files_size() -> None:
    for data in (JSON_LINES * 10_000, CSV, gzip.compress(JSON_LINES)):
        positions = [at for _, at in read_items(DimensionType.USER, io.BytesIO(data), VersionClock(), 10_000)]
        assert positions == sorted(positions)
        assert positions[-1] == len(data)


def test_many_rows_come_some_at_a_time() -> None:
    data = b"id,a\n" + b"".join(b"u%d,x\n" % number for number in range(5000))
    sizes = [len(items) for items, _ in read_items(DimensionType.USER, io.BytesIO(data), VersionClock(), 10_000)]
    assert sum(sizes) == 5000
    assert max(sizes) <= 1000


def test_an_empty_file_has_no_rows() -> None:
    assert read(b"") == ([], [])
    assert read(gzip.compress(b"")) == ([], [])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"name,state\nx,y\n", "one of them `id`"),
        (b"id,a,a\nx,y,z\n", "different names"),
        (b"id,,b\nx,y,z\n", "different names"),
        (b"\x7fELF\x02\x01", "neither JSON lines nor CSV"),
        (gzip.compress(JSON_LINES)[:-4], "gzip file is corrupt"),
        (b"\x1f\x8b\x08garbage that is no gzip at all", "gzip file is corrupt"),
        (b'id,a\nx,"' + b"y" * 20_000 + b'"\n', "cannot be read on"),
        (b'id,a\nx,"y', "cannot be read on"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(data: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        read(data)


def test_rows_of_erased_objects_are_refused_in_their_place() -> None:
    data = b'{"id":"a","attributes":{}}\n7\n{"id":"gone","attributes":{}}\n{"id":"b","attributes":{}}\n'
    asked: list[list[str]] = []

    def erased(ids: Sequence[str]) -> set[str]:
        asked.append(list(ids))
        return {"gone"}

    blocks = read_items(DimensionType.USER, io.BytesIO(data), VersionClock(), 1_000, erased)
    items = [item for block, _ in blocks for item in block]
    assert [id_ for ids in asked for id_ in ids] == ["a", "gone", "b"]
    said = [(item.line, item.code) if isinstance(item, Refusal) else item.id for item in items]
    assert said == ["a", (2, "INVALID_ROW"), (3, "ERASED"), "b"]
