"""Files through which a stand-in and the harness talk: triggers that the harness sets, notes that a stand-in leaves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

DROP_ONE_IN = "CHAOS_DROP_ONE_IN"


def does() -> frozenset[str]:
    """Return what this process is to do wrong."""
    return frozenset(os.environ["CHAOS_DOES"].split(","))


def folder() -> Path:
    """Return the folder of triggers and notes."""
    return Path(os.environ["CHAOS_FOLDER"])


def trigger_of(folder: Path, worker: str) -> Path:
    """Return the file whose existence tells a worker to do it at the next occasion, once."""
    return folder / f"trigger-{worker}"


def note_of(folder: Path, worker: str) -> Path:
    """Return the file that a worker writes when it does it."""
    return folder / f"note-{worker}"


def dropped_of(folder: Path) -> Path:
    """Return the file of what stand-ins have dropped: JSON lines of batch_id, event_index and mid."""
    return folder / "dropped.jsonl"


def take_trigger() -> bool:
    """Whether this worker is to do it now; the trigger is used up."""
    try:
        trigger_of(folder(), os.environ["MIDSTREAM_WORKER_ID"]).unlink()
    except FileNotFoundError:
        return False
    return True


def leave_note() -> None:
    """Say that it is being done, whole or not at all."""
    note = note_of(folder(), os.environ["MIDSTREAM_WORKER_ID"])
    new = note.with_name(note.name + ".new")
    new.write_text(str(os.getpid()))
    new.replace(note)


def signal_self(number: signal.Signals) -> None:
    """Stop or end this process, here."""
    signal.raise_signal(number)  # in this thread: another one would let this go on for a moment


def drop(mid: str, batch_id: str, event_index: int) -> None:
    """Note an event that is dropped. One write, so that several processes may do it at once."""
    line = json.dumps({"batch_id": batch_id, "event_index": event_index, "mid": mid}) + "\n"
    fd = os.open(dropped_of(folder()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def is_dropped(mid_hash: int) -> bool:
    """Whether an event is one of those to drop: by its mid, so that every reading drops the same."""
    return mid_hash % int(os.environ.get(DROP_ONE_IN, "10000")) == 7


def read_dropped(folder: Path) -> list[dict[str, Any]]:
    """Return what was dropped, each arrival once."""
    path = dropped_of(folder)
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return list({(entry["batch_id"], entry["event_index"]): entry for entry in found}.values())
