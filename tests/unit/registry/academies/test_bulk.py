"""Many academies, users and grants from a file: a bad row costs only itself, and again is as once."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, event

from midstream.registry.academies import bulk
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.bulk import ACADEMIES, GRANTS, USERS, Kind, import_rows
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.users import Users
from midstream.row_files import FileError, Refusal

Import = Callable[[Kind[Any], bytes], tuple[int, list[tuple[int, str]]]]


@pytest.fixture
def bring(engine: Engine) -> Import:
    """Import a file; return how many rows were stored, and the lines refused with their codes."""

    def bring(kind: Kind[Any], data: bytes) -> tuple[int, list[tuple[int, str]]]:
        refusals: list[Refusal] = []
        steps = list(import_rows(engine, kind, io.BytesIO(data), refusals.append))
        assert steps[-1][1] == len(data)
        return sum(stored for stored, _ in steps), [(one.line, one.code) for one in refusals]

    return bring


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def academies(engine: Engine) -> list[tuple[int, str, str]]:
    return [one[:3] for one in Academies(engine).page(limit=10_000)]


def test_academies(engine: Engine, bring: Import) -> None:
    file = lines({"id": 7, "name": "a"}, {"id": 3, "name": "b", "status": "inactive"})
    assert bring(ACADEMIES, file) == (2, [])
    assert academies(engine) == [(3, "b", "inactive"), (7, "a", "active")]
    before = Academies(engine).page(limit=10)
    assert bring(ACADEMIES, file) == (2, [])
    assert Academies(engine).page(limit=10) == before
    # What differs is taken over; a status that the file does not say stays.
    assert bring(ACADEMIES, b"id,name,status\n3,B,\n7,a,deleted\n9,c,\n") == (3, [])
    assert academies(engine) == [(3, "B", "inactive"), (7, "a", "deleted"), (9, "c", "active")]
    assert [one.created_at for one in Academies(engine).page(limit=2)] == [one.created_at for one in before]
    assert Academies(engine).create("d") == 10


def test_of_one_twice_in_a_file_the_later_counts(engine: Engine, bring: Import) -> None:
    file = lines(*({"id": 1, "name": f"n{n}", "status": "inactive"} for n in range(5)), {"id": 1, "name": "last"})
    assert bring(ACADEMIES, file) == (6, [])
    assert academies(engine) == [(1, "last", "inactive")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_users(engine: Engine, bring: Import, pack: type[bytes]) -> None:
    Users(engine).create("old", 2)
    file = '\ufeffid,name\n1,Ada\n2,"Grace, H."\n9223372036854775807,学院\n'.encode()
    assert bring(USERS, pack(file)) == (3, [])
    assert [one[:2] for one in Users(engine).page(limit=9)] == [(1, "Ada"), (2, "Grace, H."), (2**63 - 1, "学院")]


BAD: list[tuple[object, str]] = [
    ({"id": 0, "name": "x"}, "INVALID_ROW"),
    ({"id": -1, "name": "x"}, "INVALID_ROW"),
    ({"id": 2**63, "name": "x"}, "INVALID_ROW"),
    ({"id": 10**40, "name": "x"}, "INVALID_ROW"),
    ({"id": "5", "name": "x"}, "INVALID_ROW"),
    ({"id": 5.5, "name": "x"}, "INVALID_ROW"),
    ({"id": True, "name": "x"}, "INVALID_ROW"),
    ({"id": None, "name": "x"}, "INVALID_ROW"),
    ({"id": 5, "name": ""}, "INVALID_ROW"),
    ({"id": 5, "name": "a\0b"}, "INVALID_ROW"),
    ({"id": 5, "name": "x" * 257}, "INVALID_ROW"),
    ({"id": 5}, "INVALID_ROW"),
    ({"name": "x"}, "INVALID_ROW"),
    ({"id": 5, "name": "x", "statsu": "deleted"}, "INVALID_ROW"),
    ([5, "x"], "INVALID_ROW"),
    ({"id": 5, "name": "x" * 70_000}, "TOO_LARGE"),
]


@pytest.mark.parametrize(("row", "code"), BAD)
@pytest.mark.parametrize("kind", [ACADEMIES, USERS])
def test_a_bad_line_costs_only_itself(engine: Engine, bring: Import, kind: Kind[Any], row: object, code: str) -> None:
    file = lines({"id": 1, "name": "a"}, row, {"id": 2, "name": "b"})
    assert bring(kind, file) == (2, [(2, code)])


@pytest.mark.parametrize(
    ("line", "code"),
    [(b"nope", "INVALID_JSON"), (b'{"id":5,"name":"\xff"}', "INVALID_UTF8"), (b'{"id":5,"name":"x"', "INVALID_JSON"),
     (b'{"id":5,"name":"\\ud800"}', "INVALID_JSON"), (b'{"id":' + b"[" * 60_000, "INVALID_ROW"),
     (b'{"id":5,"name":"x","status":"closed"}', "INVALID_ROW"), (b'{"id":NaN,"name":"x"}', "INVALID_JSON")],
)  # fmt: skip
def test_lines_that_are_none(bring: Import, line: bytes, code: str) -> None:
    file = b'{"id":1,"name":"a"}\n\n' + line + b'\n{"id":2,"name":"b"}'
    assert bring(ACADEMIES, file) == (2, [(3, code)])


def test_bad_csv_rows(engine: Engine, bring: Import) -> None:
    file = (
        b"id,name,status\n1,a,\n0,x,\nfive,x,\n99999999999999999999,x,\n,x,\n5,,\n6,x,closed\n7\n8,\xff,\n9,z,deleted\n"
    )
    assert bring(ACADEMIES, file) == (2, [(line, "INVALID_ROW") for line in range(3, 11)])
    assert academies(engine) == [(1, "a", "active"), (9, "z", "deleted")]


@pytest.mark.parametrize(
    ("kind", "head", "words"),
    [(ACADEMIES, b"id,title\n", "`id` and `name`"), (USERS, b"name\n", "`id` and `name`"),
     (GRANTS, b"user,academy\n", "`capability`")],
)  # fmt: skip
def test_another_file_is_refused_whole(bring: Import, kind: Kind[Any], head: bytes, words: str) -> None:
    with pytest.raises(FileError, match=words):
        bring(kind, head + b"1,2,3\n")


def test_grants(engine: Engine, bring: Import) -> None:
    bring(ACADEMIES, b"id,name\n1,a\n2,b\n")
    bring(USERS, b"id,name\n1,a\n2,b\n")
    file = b"user,academy,capability\n1,1,crud_telemetry\n1,2,read_telemetry\n2,1,crud_telemetry\n1,1,crud_telemetry\n"
    assert bring(GRANTS, file) == (4, [])
    assert bring(GRANTS, file) == (4, [])
    assert Grants(engine).list(limit=9) == [
        (1, 1, "crud_telemetry"),
        (1, 2, "read_telemetry"),
        (2, 1, "crud_telemetry"),
    ]
    bad = lines(
        {"user": 1, "academy": 1, "capability": "a b"},
        {"user": 3, "academy": 1, "capability": "x"},
        {"user": 2, "academy": 2, "capability": "x"},
        {"user": 1, "academy": 3, "capability": "x"},
        {"user": 0, "academy": 1, "capability": "x"},
    )
    stored, refusals = bring(GRANTS, bad)
    assert stored == 1
    assert sorted(refusals) == [(1, "INVALID_ROW"), (2, "UNKNOWN_USER"), (4, "UNKNOWN_ACADEMY"), (5, "INVALID_ROW")]


def test_some_hundred_in_a_transaction_and_what_was_stored_stays(engine: Engine) -> None:
    begun: list[object] = []
    event.listen(engine, "begin", begun.append)
    file = lines(*({"id": n, "name": f"n{n}"} for n in range(1, 1_601)))
    stored = [some for some, _ in import_rows(engine, USERS, io.BytesIO(file), pytest.fail) if some]
    assert stored == [500, 500, 500, 100]
    assert len(begun) == 4
    cut = gzip.compress(lines(*({"id": n, "name": f"m{n}"} for n in range(1, 20_001))))[:-20]
    with pytest.raises(FileError):
        stored = [some for some, _ in import_rows(engine, USERS, io.BytesIO(cut), pytest.fail)]
    assert Users(engine).page(limit=1)[0].name == "m1"


def test_it_holds_little_of_the_file(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row is stored soon after it was read, whatever follows."""
    monkeypatch.setattr(bulk, "_ROWS_AT_ONCE", 10)
    read = 0

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            nonlocal read
            data = lines(*({"id": read + n, "name": "x"} for n in range(1, 11)))
            read += 10
            buffer[: len(data)] = data
            return len(data)

    stored = 0
    for some, _ in import_rows(engine, USERS, Endless(), pytest.fail):  # type: ignore[arg-type]
        stored += some
        assert read - stored <= 15_000
        if stored >= 20_000:
            break
    assert stored >= 20_000
