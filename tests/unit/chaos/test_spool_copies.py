"""Segments of a spool, copied and put back."""

from __future__ import annotations

from pathlib import Path

from tests.chaos import spool


def test_copies_are_put_back_where_they_were(tmp_path: Path) -> None:
    folder, copies_in = tmp_path / "spool", tmp_path / "copies"
    for slot, size in (("0", 500), ("1", 700), ("2", 16)):  # the last holds nothing but its head
        (folder / slot).mkdir(parents=True)
        (folder / slot / f"{slot}.v1.spool").write_bytes(slot.encode() * size)
        (folder / slot / "state.json").write_text("{}" * 100)
    assert spool.spooled_bytes(folder) == 1_200
    copies = spool.copy_segments(folder, copies_in)
    assert len(copies) == 2
    (folder / "0" / "0.v1.spool").unlink()
    assert spool.put_back(copies, copies_in, folder) == 1
    assert (folder / "0" / "0.v1.spool").read_bytes() == b"0" * 500
    assert spool.put_back(copies, copies_in, folder) == 0


def test_no_spool_holds_nothing(tmp_path: Path) -> None:
    assert spool.spooled_bytes(tmp_path / "none") == 0
