"""A request's body: where its text ends and its data begins, in memory and on the disk, whatever pieces it comes in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from deploy.local.engine import upload as upload_module
from deploy.local.engine.errors import ClientGoneError
from deploy.local.engine.statement import insert_text_bytes
from deploy.local.engine.upload import Upload, receive_body

from .conftest import EngineProcess


@pytest.mark.parametrize(
    ("text", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", b"1,2\n"),
        (b"INSERT INTO t (a, `FORMAT`) SETTINGS b=1 FORMAT ArrowStream\n\xff\xff\x00", b"\xff\xff\x00"),
        (b"INSERT INTO t VALUES (1)", b" (1)"),
        (b"INSERT INTO t FORMAT CSV \r\n1", b"1"),
    ],
)
def test_the_text_of_an_insert_ends_where_its_data_begins(text: bytes, data: bytes) -> None:
    assert text[insert_text_bytes(text) :] == data


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t FORMAT CSV",  # the name may go on: CSVWithNames
        b"INSERT INTO t FORMAT CSV ",  # so may the blanks
        b"INSERT INTO t FORMAT CSV\r",
        b"INSERT INTO t VALUES",
        b"INSERT INTO t (a,",
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t FROM INFILE 'f' FORMAT CSV\n1",
        b"SELECT 1 FORMAT CSV\n",
        b"",
    ],
)
def test_nothing_is_taken_for_text_whose_end_is_not_sure(text: bytes) -> None:
    assert insert_text_bytes(text) == 0


def received(folder: Path, pieces: list[bytes]) -> Upload:
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1}
        for place, piece in enumerate(pieces)
    ]

    async def receive() -> Message:
        return messages.pop(0)

    return asyncio.run(receive_body(receive, folder, insert_text_bytes))


@pytest.mark.parametrize("memory_bytes", [1 << 20, 40])
@pytest.mark.parametrize("step", [1, 7, 30, 1_000])
def test_a_body_is_the_same_in_whatever_pieces_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int, step: int
) -> None:
    monkeypatch.setattr(upload_module, "MEMORY_BYTES", memory_bytes)
    body = b"INSERT INTO t FORMAT CSV\n" + bytes(range(256))
    upload = received(tmp_path, [body[place : place + step] for place in range(0, len(body), step)])
    assert upload.bytes == len(body)
    for start in (0, 3, 25, 100, len(body)):
        assert b"".join(upload.chunks(start)) == body[start:]
        assert upload.head(start) == body[:start]
    split = step > 25  # otherwise the first piece does not show where the text ends
    path = upload.path_from(25)
    assert (path is not None) is split
    if path is not None:
        assert Path(path).read_bytes() == body[25:]
    assert (upload.path_from(0) is None) is split
    assert list(tmp_path.iterdir()) == []  # files without names
    upload.close()


async def dripping(folder: Path, pauses_s: list[float]) -> Upload:
    """Receive a body of which a letter comes after each pause."""
    rest = list(pauses_s)

    async def receive() -> Message:
        await asyncio.sleep(rest.pop(0))
        return {"type": "http.request", "body": b"x", "more_body": bool(rest)}

    return await receive_body(receive, folder, insert_text_bytes)


def test_a_body_may_take_long_but_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "IDLE_S", 0.5)
    upload = asyncio.run(dripping(tmp_path, [0.1] * 10))
    assert upload.head(99) == b"x" * 10
    upload.close()
    with pytest.raises(ClientGoneError):
        asyncio.run(dripping(tmp_path, [0.1, 30.0]))


@pytest.mark.parametrize("in_query", [False, True])
@pytest.mark.parametrize("lines", [10, 5_000_000])
def test_data_of_any_size_behind_the_text_and_alone(
    engine: EngineProcess, table: str, lines: int, in_query: bool
) -> None:
    assert lines < 1_000 or lines * 8 > upload_module.MEMORY_BYTES
    engine.query(f"CREATE TABLE {table} (n UInt64) ORDER BY n")
    sql = f"INSERT INTO {table} FORMAT TSV"
    data = b"".join(b"%07d\n" % number for number in range(lines))
    with httpx.Client(base_url=engine.url, timeout=60) as web:
        if in_query:
            web.post("/", params={"query": sql}, content=data).raise_for_status()
        else:
            web.post("/", content=sql.encode() + b"\n" + data).raise_for_status()
    assert engine.query(f"SELECT count(), sum(n) FROM {table}") == f"{lines}\t{lines * (lines - 1) // 2}\n"
