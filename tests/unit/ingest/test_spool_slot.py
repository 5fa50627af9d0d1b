"""A slot has one owner."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.spool.segment import SegmentWriter
from ingest.spool.slot import adopt_slot, find_left_over, take_slot

ROOT = Path(__file__).resolve().parents[3]
TAKE = """
import sys
from pathlib import Path
from ingest.spool.slot import take_slot
slot = take_slot(Path(sys.argv[1]))
slot.write(is_open=True, settled=False)
print(slot.folder.name, slot.state.id, flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that holds a slot."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE, str(root)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def holds(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        name, id_ = self.process.stdout.readline().split()
        return name, id_

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_processes_never_share_a_slot_and_get_it_back(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    holders = [Holder(root) for _ in range(4)]
    try:
        held = [holder.holds() for holder in holders]
        assert sorted(name for name, _ in held) == ["0", "1", "2", "3"]
        assert len({id_ for _, id_ in held}) == 4
        mine = take_slot(root)
        assert mine.folder.name == "4"
        assert all(adopt_slot(root, name) is None for name, _ in held)
        assert find_left_over(root) == []
        name, id_ = held[2]
        holders[2].kill()  # the kernel ends its lock
        assert find_left_over(root) == [name]
        anew = Holder(root)
        holders[2] = anew
        assert anew.holds() == (name, id_)
        mine.release()
    finally:
        for holder in holders:
            holder.kill()


def test_an_open_slot_is_taken_before_a_lower_closed_one(tmp_path: Path) -> None:
    slots = [take_slot(tmp_path) for _ in range(3)]
    slots[2].write(is_open=True, settled=False)
    for slot in slots:
        slot.release()
    assert [take_slot(tmp_path).folder.name for _ in range(3)] == ["2", "0", "1"]


def test_left_over_is_what_has_data_or_an_open_mark(tmp_path: Path) -> None:
    slots = [take_slot(tmp_path) for _ in range(4)]
    slots[1].write(is_open=False, settled=False)
    slots[2].write(is_open=True, settled=False)
    SegmentWriter(slots[3].folder, 0).close()
    for slot in slots:
        slot.release()
    assert find_left_over(tmp_path) == ["1", "2", "3"]


def test_state_is_remembered(tmp_path: Path) -> None:
    slot = take_slot(tmp_path)
    slot.write(is_open=True, settled=False)
    assert json.loads((slot.folder / "state.json").read_bytes()) == {
        "id": slot.state.id,
        "open": True,
        "settled": False,
    }
    slot.release()
    again = take_slot(tmp_path)
    assert again.state == slot.state
    again.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"open": true}', b"\xff"])
def test_unreadable_state_makes_a_new_closed_slot(tmp_path: Path, content: bytes) -> None:
    slot = take_slot(tmp_path)
    slot.release()
    (slot.folder / "state.json").write_bytes(content)
    again = take_slot(tmp_path)
    assert (again.state.open, again.state.settled) == (False, True)
    assert again.state.id
