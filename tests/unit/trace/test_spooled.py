"""Reading a spool that its collectors are writing to, draining and leaving behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.spool.format import pack
from ingest.spool.segment import SegmentWriter
from midstream.receipt import Receipt, decode_receipt, encode_receipt
from midstream.trace import spooled
from midstream.trace.spooled import spooled_records

AT_MS = 1_790_000_000_000


def write(slot: Path, number: int, *bodies: bytes) -> Path:
    slot.mkdir(parents=True, exist_ok=True)
    segment = SegmentWriter(slot, number)
    for index, body in enumerate(bodies):
        receipt = Receipt(
            batch_id=f"b{number}-{index}", received_at_ms=AT_MS, events=1, sequence=0, collector="k", bytes=1
        )
        segment.append(pack(segment.file.seed, AT_MS, b"key", encode_receipt(receipt), body))
    segment.close()
    return segment.file.path


def read(root: Path, max_bytes: int = 1 << 20) -> list[tuple[str, bytes]]:
    found = []
    for record in spooled_records(root, max_bytes):
        receipt = decode_receipt(record.headers)
        assert receipt is not None
        assert (record.topic, record.append_time_ms) == ("", AT_MS)
        found.append((receipt.batch_id, record.value))
    return found


def test_all_slots_are_read_and_left_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "0", 1, b"one", b"two")
    write(tmp_path / "0", 2, b"three")
    torn = write(tmp_path / "1", 1, b"four", b"five")
    with torn.open("r+b") as file:
        file.truncate(os.path.getsize(torn) - 3)  # being written just now
    (tmp_path / "0" / "state.json").write_text("{}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert read(tmp_path) == [("b1-0", b"one"), ("b1-1", b"two"), ("b2-0", b"three"), ("b1-0", b"four")]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_where_there_is_no_spool_there_is_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []
    assert read(tmp_path) == []


def test_a_segment_that_is_drained_meanwhile_is_passed_over(tmp_path: Path) -> None:
    gone = write(tmp_path / "0", 2, b"two")
    write(tmp_path / "0", 1, b"one")
    reading = spooled_records(tmp_path, 1 << 20)
    assert next(reading).value == b"one"
    gone.unlink()
    assert list(reading) == []


def test_a_spool_that_changes_while_it_is_listed_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "0", 1, b"one")
    failing = [True, True]
    real = spooled.list_segments

    def list_segments(folder: Path) -> object:
        if failing and failing.pop():
            raise FileNotFoundError
        return real(folder)

    monkeypatch.setattr(spooled, "list_segments", list_segments)
    assert read(tmp_path) == [("b1-0", b"one")]
    failing += [True] * 9
    with pytest.raises(OSError, match="faster"):
        read(tmp_path)


def test_more_than_may_be_searched_is_said(tmp_path: Path) -> None:
    write(tmp_path / "0", 1, b"one")
    write(tmp_path / "0", 2, b"x" * 1_000)
    reading = spooled_records(tmp_path, 1_000)
    assert next(reading).value == b"one"
    with pytest.raises(OSError, match="larger"):
        next(reading)
