"""Segments of the spool: what is read is what was written, whatever happened to the file in between."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ingest.spool.format import (
    FILE_HEAD_BYTES,
    MAGIC,
    Damage,
    Record,
    file_head,
    is_torn,
    pack,
    record_bytes,
    scan,
)
from ingest.spool.segment import DAMAGED, SegmentFile, read_segment, recover_segment
from midstream.topics import MAX_MESSAGE_BYTES

SEED = 0x1234_5678_9ABC_DEF0
Batch = tuple[int, bytes, bytes, bytes]

BATCHES: list[Batch] = [
    (1_700_000_000_000, b"phone", b'{"batch_id":"1"}', b'{"events":[]}'),
    (1_700_000_000_001, b"", b'{"batch_id":"2"}', bytes(range(256))),
    (1_700_000_000_002, b"k" * 2000, b'{"batch_id":"3"}', MAGIC * 20),
    (-1, b"", b"{}", b""),
]

batches = st.lists(
    st.tuples(
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=20),
        st.binary(max_size=40),
        st.one_of(st.binary(max_size=120), st.just(MAGIC * 9), st.just(b"\0" * 60)),
    ),
    max_size=8,
)


def packed(batch: Batch, seed: int = SEED) -> bytes:
    return b"".join(pack(seed, *batch))


def segment(written: list[Batch]) -> bytes:
    return file_head(SEED) + b"".join(map(packed, written))


def read(data: bytes) -> tuple[list[Batch], list[Damage]]:
    parts = list(scan(data, SEED))
    at = FILE_HEAD_BYTES if data.startswith(file_head(SEED)) else 0
    for part in parts:  # without a gap
        assert part.start == at
        at = part.end
    assert at == max(len(data), at if not parts else 0)
    records = [(part.received_at_ms, part.key, part.receipt, part.body) for part in parts if isinstance(part, Record)]
    return records, [part for part in parts if isinstance(part, Damage)]


@given(batches)
def test_what_is_written_is_read(written: list[Batch]) -> None:
    data = segment(written)
    assert read(data) == (written, [])
    assert len(data) == FILE_HEAD_BYTES + sum(record_bytes(*batch[1:]) for batch in written)


def test_largest_batch_is_taken_and_a_larger_one_is_not() -> None:
    body = b"x" * MAX_MESSAGE_BYTES
    assert read(segment([(0, b"", b"", body)])) == ([(0, b"", b"", body)], [])
    with pytest.raises(ValueError, match="larger"):
        pack(SEED, 0, b"", b"", body + b"x")


@pytest.mark.parametrize("zeros", [0, 1, 7, 5000])
def test_a_write_cut_short_at_any_byte_costs_only_its_own_record(zeros: int) -> None:
    whole = segment(BATCHES)
    starts = [part.start for part in scan(whole, SEED)]
    for cut in range(len(whole)):
        data = whole[:cut] + b"\0" * zeros
        records, damage = read(data)
        complete = sum(1 for start, batch in zip(starts, BATCHES, strict=True) if start + len(packed(batch)) <= cut)
        # Zeros may happen to be what is missing of a record: then it is whole.
        assert records[:complete] == BATCHES[:complete]
        assert records == BATCHES[: len(records)]
        for part in damage:
            assert part.end == len(data)
            assert is_torn(data[part.start :], SEED), cut


def test_other_bytes_at_the_end_are_no_torn_write() -> None:
    last = packed(BATCHES[0])
    for at in range(len(last)):
        changed = last[:at] + bytes([last[at] ^ 0x55]) + last[at + 1 :]
        assert changed[-1] != 0  # or it might have been cut there
        records, damage = read(segment(BATCHES[:1]) + changed)
        assert records == BATCHES[:1]
        assert [part.end - part.start for part in damage] == [len(last)]
        assert not is_torn(changed, SEED)


def test_a_body_that_imitates_a_record_is_none() -> None:
    """Not even when the record around it is damaged: the writer's seed is not known to who sends a body."""
    inner = packed((5, b"k", b"{}", b"invented"), seed=0)
    data = bytearray(segment([(1, b"", b"{}", inner * 3), *BATCHES]))
    data[FILE_HEAD_BYTES + 30] ^= 1
    assert read(bytes(data))[0] == BATCHES


@settings(max_examples=300)
@given(batches.filter(bool), st.randoms(use_true_random=False), st.data())
def test_damage_loses_alters_and_invents_nothing_beside_it(
    written: list[Batch], chance: random.Random, data: st.DataObject
) -> None:
    whole = segment(written)
    spans = [(part.start, part.end) for part in scan(whole, SEED)]
    damaged = bytearray(whole)
    touched: set[int] = set()
    for _ in range(data.draw(st.integers(1, 4))):
        start = chance.randrange(len(whole))
        end = min(len(whole), start + chance.choice([1, 1, 2, 8, 64]))
        kind = chance.choice(["flip", "zero", "noise", "magic"])
        for at in range(start, end):
            new = {
                "flip": damaged[at] ^ 1 << chance.randrange(8),
                "zero": 0,
                "noise": chance.randrange(256),
                "magic": MAGIC[at % len(MAGIC)],
            }[kind]
            damaged[at] = new
        touched |= set(range(start, end))
    changed = {at for at in touched if damaged[at] != whole[at]}
    records, damage = read(bytes(damaged))
    expected = [
        batch for batch, (start, end) in zip(written, spans, strict=True) if not changed & set(range(start, end))
    ]
    assert records == expected
    assert sum(part.end - part.start for part in damage) >= len(changed)


@settings(max_examples=150)
@given(batches.filter(bool), st.integers(0, 10_000), st.integers(1, 40), st.booleans())
def test_bytes_that_went_missing_or_came_in_between_lose_nothing_beside_them(
    written: list[Batch], where: int, count: int, insert: bool
) -> None:
    whole = segment(written)
    at = where % len(whole)
    data = whole[:at] + b"\x07" * count + whole[at:] if insert else whole[:at] + whole[at + count :]
    spans = [(part.start, part.end) for part in scan(whole, SEED)]
    lost = (at, at) if insert else (at, at + count)
    sure = [batch for batch, (start, end) in zip(written, spans, strict=True) if end <= lost[0] or start >= lost[1]]
    records, _ = read(data)
    assert [batch for batch in records if batch in sure] == sure
    assert all(batch in written for batch in records)


# In a file


def put(folder: Path, data: bytes) -> SegmentFile:
    path = folder / f"{3:020}-{SEED:016x}.v1.spool"
    path.write_bytes(data)
    return SegmentFile(3, path, SEED)


def test_torn_record_is_cut_off(tmp_path: Path) -> None:
    whole = segment(BATCHES[:2])
    found = put(tmp_path, whole + packed(BATCHES[2])[:-1] + b"\0" * 100)
    recover_segment(found)
    assert (found.batches, found.oldest_ms, found.size) == (2, BATCHES[0][0], len(whole))
    assert found.path.read_bytes() == whole
    assert not (tmp_path / DAMAGED).exists()


def test_damage_is_kept_aside_and_counted_once(tmp_path: Path) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("midstream_spool_damaged_bytes_total") or 0.0

    data = bytearray(segment(BATCHES))
    at = FILE_HEAD_BYTES + len(packed(BATCHES[0])) + 50
    data[at] ^= 0xFF
    found = put(tmp_path, bytes(data))
    before = counted()
    for _ in range(3):
        recover_segment(found)
        assert [record.body for record in read_segment(found)] == [BATCHES[i][3] for i in (0, 2, 3)]
    bad = bytes(data[at - 50 :][: len(packed(BATCHES[1]))])
    assert counted() - before == len(bad)
    [kept] = (tmp_path / DAMAGED).iterdir()
    assert kept.read_bytes() == bad
    assert found.path.read_bytes() == data
