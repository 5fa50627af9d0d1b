"""The moment up to which everything is complete, from the collectors' marks and the pipeline's progress. Pure.

Every open collector says: what I received before ``low`` and answered with 200 is in ``telemetry.raw``. So what was
received before the least ``low`` lies below the ends that ``telemetry.raw`` has afterwards, and once the pipeline is
past these ends, all of it has become stored, duplicate or rejected.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from midstream.kafka.marks import Mark
from processors.store.accounting.progress import Offsets, is_past, thin_out

CLOCK_MARGIN_MS = 2_000
"""How far the clocks of two collectors may lie apart. A collector that opens while others are at work receives batches
later than their marks that were known then; by its own clock that may be earlier."""

MAX_OPEN = 10_000


@dataclass(slots=True)
class Collectors:
    """The newest mark of each open collector, and what is needed of the closed ones."""

    open: dict[str, Mark] = field(default_factory=dict)
    closed_at_ms: int = 0
    """Newest closing of any; 0: none has closed."""
    overflowed: bool = False
    """More collectors are open than can be held, so nothing can be said any more."""

    def take(self, mark: Mark) -> None:
        """Take a mark; those of one collector in the order of their records."""
        if not mark.open:
            self.open.pop(mark.id, None)
            self.closed_at_ms = max(self.closed_at_ms, mark.at_ms)
        elif mark.id in self.open or len(self.open) < MAX_OPEN:
            self.open[mark.id] = mark
        else:
            self.overflowed = True

    def forget(self, id_: str) -> None:
        """Take away a collector whose record was deleted: an operator gave up its spool."""
        self.open.pop(id_, None)

    def low_ms(self) -> int:
        """Return a moment before which everything that was answered with 200 is in ``telemetry.raw``; 0: none known.

        With none open it is the newest closing: whoever opens next receives later. It is not the present time, which
        would need the clock of one who receives nothing. Where no collector has ever been, nothing is known of
        what others wrote into the topic, so nothing is claimed.
        """
        if self.overflowed:
            return 0
        low = min((mark.low_ms for mark in self.open.values()), default=self.closed_at_ms)
        return max(low - CLOCK_MARGIN_MS, 0)


class Watermark:
    """Works out ``complete_until``, which never goes back."""

    def __init__(self, reached_ms: int = 0) -> None:
        self.reached_ms = reached_ms
        """Every batch received before it has become stored, duplicate or rejected. Epoch milliseconds."""
        self._waiting: deque[tuple[int, Offsets]] = deque()

    def observe(self, low_ms: int, ends: Offsets, complete: Offsets) -> int:
        """Take one round; return :attr:`reached_ms`.

        Args:
            low_ms: see :meth:`Collectors.low_ms`, read first.
            ends: ends of ``telemetry.raw``, read after.
            complete: its complete offsets.
        """
        if low_ms > (self._waiting[-1][0] if self._waiting else self.reached_ms):
            self._waiting.append((low_ms, dict(ends)))
            self._waiting = thin_out(self._waiting)
        while self._waiting and is_past(complete, self._waiting[0][1]):
            self.reached_ms = self._waiting.popleft()[0]
        return self.reached_ms
