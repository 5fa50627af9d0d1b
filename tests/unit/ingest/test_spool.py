"""Batches into the spool: shared syncs, numbers without a gap, and a disk that fails."""

import asyncio
import errno
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ingest.spool import segment as segment_module
from ingest.spool.segment import list_segments, read_segment
from ingest.spool.shelf import Shelf
from ingest.spool.spool import Spool, SpoolFailedError, SpoolFullError, SpoolUnknownError
from midstream.receipt import Receipt, decode_receipt
from midstream.settings import KIB, MIB, Settings
from midstream.topics import RECEIPT_HEADER

ROOT = Path(__file__).resolve().parents[3]


def make_spool(folder: Path, **changes: Any) -> Spool:
    shelf = Shelf(folder)
    shelf.load()
    return Spool(shelf, Settings(home=folder, registry="", **changes))


def receipt_of(name: str, received_at_ms: int, collector: str, sequence: int) -> Receipt:
    return Receipt(
        batch_id=name,
        received_at_ms=received_at_ms,
        collector=collector,
        sequence=sequence,
        events=1,
        bytes=1,
        source="spool",
    )


async def append(spool: Spool, name: str, body: bytes = b"body", received_at_ms: int = 1000) -> None:
    await spool.append(body, b"key", received_at_ms, partial(receipt_of, name, received_at_ms))


def contents(folder: Path) -> list[tuple[Receipt, bytes]]:
    """What another process would find."""
    found = []
    for one in list_segments(folder):
        for record in read_segment(one):
            receipt = decode_receipt([(RECEIPT_HEADER, record.receipt)])
            assert receipt is not None
            assert receipt.received_at_ms == record.received_at_ms
            found.append((receipt, record.body))
    return found


def check_gapless(receipts: list[Receipt]) -> None:
    lives: dict[str, list[int]] = {}
    for receipt in receipts:
        lives.setdefault(receipt.collector, []).append(receipt.sequence)
    for collector, numbers in lives.items():
        assert collector.endswith("/spool")
        assert numbers == list(range(len(numbers)))


async def test_batches_are_numbered_in_the_order_of_the_file_and_share_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = 0
    real = segment_module._sync_data

    def sync(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        real(fd)

    monkeypatch.setattr(segment_module, "_sync_data", sync)
    spool = make_spool(tmp_path, spool_segment_bytes=64 * KIB)
    await asyncio.gather(*(append(spool, str(number), b"x" * 1000, 5000 - number) for number in range(500)))
    await spool.close(1)
    found = contents(tmp_path)
    assert [receipt.batch_id for receipt, _ in found] == [str(number) for number in range(500)]
    assert len({receipt.collector for receipt, _ in found}) == 1
    check_gapless([receipt for receipt, _ in found])
    assert len(list_segments(tmp_path)) > 5
    assert 5 < syncs < 50
    assert spool.shelf.batches == 500
    assert spool.shelf.bytes == sum(one.size for one in list_segments(tmp_path))
    assert spool.shelf.oldest_ms == 5000 - 499


async def test_counts_are_found_again(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    for number in range(3):
        await append(spool, str(number), received_at_ms=1000 + number)
    again = Shelf(tmp_path)
    again.load()
    assert (again.bytes, again.batches, again.oldest_ms) == (spool.shelf.bytes, 3, 1000)
    assert again.take_number() == 1
    await spool.close(1)


async def test_a_copy_keeps_its_number(tmp_path: Path) -> None:
    spool = make_spool(tmp_path)
    await append(spool, "a")
    copy = receipt_of("b", 900, "life/3", 77)
    await spool.append_copy(b"copied", b"", copy)
    await append(spool, "c")
    await spool.close(1)
    receipts = [receipt for receipt, _ in contents(tmp_path)]
    assert receipts[1] == copy
    check_gapless([receipts[0], receipts[2]])
    assert spool.shelf.oldest_ms == 900


async def test_bound_is_exact_and_nothing_of_a_refused_batch_is_kept(tmp_path: Path) -> None:
    spool = make_spool(tmp_path, spool_max_bytes=4 * MIB, spool_segment_bytes=1 * MIB)
    outcomes = await asyncio.gather(
        *(append(spool, str(number), bytes(300_000)) for number in range(20)), return_exceptions=True
    )
    refused = [isinstance(outcome, SpoolFullError) for outcome in outcomes]
    assert 0 < sum(refused) < 20
    assert not spool.ready
    assert spool.full
    assert sum(one.path.stat().st_size for one in list_segments(tmp_path)) <= 4 * MIB
    for _ in range(100):
        with pytest.raises(SpoolFullError):
            await append(spool, "large", bytes(300_000))
    await append(spool, "small")
    assert spool._waiting_bytes == 0
    await spool.close(1)
    found = contents(tmp_path)
    kept = [str(number) for number in range(20) if not refused[number]]
    assert [receipt.batch_id for receipt, _ in found] == [*kept, "small"]
    check_gapless([receipt for receipt, _ in found])
    assert sum(one.path.stat().st_size for one in list_segments(tmp_path)) <= 4 * MIB


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, SpoolFullError), (errno.EDQUOT, SpoolFullError), (errno.EIO, SpoolFailedError)],
)
@pytest.mark.parametrize("written", [0, 1, 100, 20_000])
async def test_failed_write_is_cut_back_and_the_segment_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception], written: int
) -> None:
    spool = make_spool(tmp_path)
    await append(spool, "before")
    real = os.writev

    def fail(fd: int, pieces: list[bytes]) -> int:
        if written:
            real(fd, [b"".join(pieces)[:written]])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "writev", fail)
    for _ in range(3):
        with pytest.raises(expected):
            await append(spool, "refused", b"y" * 50_000)
        assert not spool.ready
    monkeypatch.undo()
    await append(spool, "after")
    found = contents(tmp_path)
    assert [receipt.batch_id for receipt, _ in found] == ["before", "after"]
    check_gapless([receipt for receipt, _ in found])
    assert len({receipt.collector for receipt, _ in found}) == 1
    assert len(list_segments(tmp_path)) == 1
    assert not (tmp_path / segment_module.DAMAGED).exists()
    await spool.close(1)


async def test_short_write_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, pieces: real(fd, [b"".join(pieces)[:7]]))
    spool = make_spool(tmp_path)
    await append(spool, "a", b"z" * 10_000)
    await spool.close(1)
    assert [body for _, body in contents(tmp_path)] == [b"z" * 10_000]


async def test_segment_is_never_written_again_after_a_failed_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make_spool(tmp_path)
    await append(spool, "before")
    real = segment_module._sync_data

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(segment_module, "_sync_data", fail)
    with pytest.raises(SpoolUnknownError):
        await append(spool, "unknown")
    [first] = list_segments(tmp_path)
    size = first.path.stat().st_size
    with pytest.raises(SpoolUnknownError):  # in a new segment, and that fails too
        await append(spool, "unknown too")
    assert not spool.ready
    monkeypatch.setattr(segment_module, "_sync_data", real)
    await append(spool, "after")
    await append(spool, "after too")
    assert first.path.stat().st_size == size
    found = [receipt for receipt, _ in contents(tmp_path)]
    assert [receipt.batch_id for receipt in found] == ["before", "after", "after too"]
    assert [receipt.sequence for receipt in found] == [0, 0, 1]
    assert found[0].collector != found[1].collector
    assert found[1].collector == found[2].collector
    await spool.close(1)


async def test_folder_that_is_gone_fails_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "slot").mkdir()
    spool = make_spool(tmp_path / "slot")
    (tmp_path / "slot").rename(tmp_path / "away")
    with pytest.raises(SpoolFailedError):
        await append(spool, "a")
    (tmp_path / "away").rename(tmp_path / "slot")
    await append(spool, "b")
    assert [receipt.batch_id for receipt, _ in contents(tmp_path / "slot")] == ["b"]
    await spool.close(1)


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from tests.unit.ingest.test_spool import append, make_spool
from ingest.spool.spool import SpoolFullError

async def main():
    spool = make_spool(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    outcomes = []
    for number in range(40):
        try:
            await append(spool, str(number), b"r" * 7_000)
        except SpoolFullError:
            outcomes.append("full")
        else:
            outcomes.append("kept")
    print(" ".join(outcomes))

asyncio.run(main())
"""


def test_a_real_limit_of_the_kernel_is_a_full_spool(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    outcomes = done.stdout.splitlines()[-1].split()
    assert outcomes[:13] == ["kept"] * 13
    assert outcomes[14] == "full"
    found = contents(tmp_path)
    assert [receipt.batch_id for receipt, _ in found] == [str(n) for n, kept in enumerate(outcomes) if kept == "kept"]


async def test_hanging_disk_is_noticed_and_what_waits_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.spool.spool._WRITE_TIMEOUT_S", 0.3)
    real = segment_module._sync_data
    hang = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sync(fd: int) -> None:
        asyncio.run_coroutine_threadsafe(hang.wait(), loop).result(20)
        real(fd)

    spool = make_spool(tmp_path)
    await append(spool, "before")
    monkeypatch.setattr(segment_module, "_sync_data", sync)
    writing = asyncio.create_task(append(spool, "being written"))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(append(spool, "not begun"))
    await asyncio.sleep(0.2)
    assert not spool.ready
    with pytest.raises(SpoolUnknownError):
        await writing
    with pytest.raises(SpoolFailedError):
        await waiting
    assert not spool._waiting
    hang.set()
    await append(spool, "after")
    assert spool.ready
    assert spool._waiting_bytes == 0
    found = [receipt for receipt, _ in contents(tmp_path)]
    assert [receipt.batch_id for receipt in found] == ["before", "being written", "after"]
    check_gapless(found)
    await spool.close(1)
