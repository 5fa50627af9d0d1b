"""Whether a collector may hold batches in a spool that this process cannot search: another host's."""

from __future__ import annotations

import json
import time
from pathlib import Path

from midstream.trace.stored import Rows

_REMEMBER_S = 1.0
_SILENT_MS = 30_000
"""One that is silent for longer may have spooled since. Measured from the newest mark: no two clocks are compared."""

# One pass over a small table, and no join: this stands before every trace's own query.
_MARKS = """SELECT toUnixTimestamp64Milli(max(at)),
groupArrayIf((id, toUnixTimestamp64Milli(at), spooled_batches), open) FROM collectors"""


class Elsewhere:
    """Reads the collectors' marks in ClickHouse and remembers the answer for a second. Threads may share it."""

    def __init__(self, rows: Rows, spool_folder: Path) -> None:
        self._rows = rows
        self._spool_folder = spool_folder
        self._answer = False
        self._asked_at = float("-inf")

    def may_hold(self) -> bool:
        """Return whether an open collector of another host has spooled batches, or was not heard of lately. Blocks.

        To be asked before what is in Kafka: what leaves a spool meanwhile is found there.

        Raises:
            ClickHouseError: it does not answer.
        """
        if time.monotonic() - self._asked_at >= _REMEMBER_S:
            asked_at = time.monotonic()
            ((newest_ms, open_),) = self._rows(_MARKS, None)
            suspects = {id_ for id_, at_ms, batches in open_ if batches or at_ms < newest_ms - _SILENT_MS}
            self._answer = bool(suspects) and not suspects <= _own_ids(self._spool_folder)
            self._asked_at = asked_at
        return self._answer


def _own_ids(spool_folder: Path) -> set[str]:
    """Return the ids of the slots that a search of this host's spool covers."""
    found = set()
    for path in spool_folder.glob("*/state.json"):
        try:
            state = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # it counts as another host's: the answer is then only not complete
        if isinstance(state, dict) and isinstance(state.get("id"), str):
            found.add(state["id"])
    return found
