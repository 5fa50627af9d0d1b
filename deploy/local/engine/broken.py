"""Parts that are broken: noticed, and healed where that can be.

A merge that meets a full disk can leave a part whose files are not as long as they should be, in the place of those it
was merged of. ClickHouse reads from it until it starts again; then it compares all lengths, sets the broken part aside,
and takes the parts again that it was merged of, which it keeps for eight minutes. So the engine is started anew when a
query meets such a part, and after each time that the disk was full, as nobody may have read from the part yet.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.local.engine.errors import CORRUPTED_DATA, QueryError
from midstream.logs import get_logger

log = get_logger(__name__)

SET_ASIDE = "SELECT database, table, name FROM system.detached_parts WHERE startsWith(reason, 'broken') ORDER BY ALL"
_PAUSE_S = 600.0
"""What starting anew does not heal is not tried again at once."""

_ROOM_FOR_S = 10.0
"""So long nothing may have failed for want of space: small inserts find room between larger ones that do not."""

_NO_SPACE = re.compile(r"No space left on device|errno: 28\b|\(NOT_ENOUGH_SPACE\)")


class BrokenParts:
    """Has the engine started anew when parts are broken, or may be.

    Args:
        folder: where it is noted when that was last done.
        end: ends this process in good order; whoever supervises it starts it again. Called once.
        clock: seconds, for how long the disk has had room.
    """

    def __init__(self, folder: Path, end: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._note = folder / "broken-part"
        self._end = end
        self._clock = clock
        self._full_at: float | None = None
        self._is_ending = False

    def stored(self) -> None:
        """Note that rows were inserted: the disk has room, for as long as nothing else says that it has none."""
        if self._is_ending or self._full_at is None:
            return
        if self._clock() - self._full_at > _ROOM_FOR_S:
            self._is_ending = True
            log.warning("engine.disk_was_full", action="starts anew, to compare the lengths of all parts")
            self._end()

    def notice(self, error: QueryError) -> None:
        """Look at the error of a query."""
        if _NO_SPACE.search(error.text):
            self._full_at = self._clock()
        if self._is_ending or error.code != CORRUPTED_DATA:
            return
        if self._was_done_lately():
            log.error("engine.part_stays_broken", error=error.text[:500])
            return
        log.error("engine.part_broken", error=error.text[:500], action="starts anew, to take what it was merged of")
        try:
            self._note.touch()
        except OSError as failure:  # the disk is full still
            log.warning("engine.not_noted", path=str(self._note), reason=failure.strerror)
        self._is_ending = True
        self._end()

    def _was_done_lately(self) -> bool:
        try:
            return time.time() - self._note.stat().st_mtime < _PAUSE_S
        except OSError:
            return False


def tell_of_what_was_set_aside(parts: Sequence[str]) -> None:
    """Say in the log which parts the engine has set aside as broken, now or earlier."""
    if parts:
        log.error("engine.parts_set_aside", parts=list(parts)[:20], count=len(parts))
