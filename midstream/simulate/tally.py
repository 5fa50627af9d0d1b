"""What became of what a simulated fleet sent."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_SAMPLES = 100_000


@dataclass(slots=True)
class Tally:
    """Counts of one run. Reply times are a uniform sample of at most 100,000 (reservoir sampling, Vitter's R)."""

    registered: int = 0
    acknowledged: int = 0
    """Reports answered 200; those sent again count again."""
    resent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    """Answers other than 200 and 201."""
    unanswered: int = 0
    late: int = 0
    """Reports that could not be sent in their interval."""
    done: Counter[str] = field(default_factory=Counter)
    """What devices did because of an answer: config, command, license, firmware."""
    reply_ms: list[float] = field(default_factory=list)
    _choice: random.Random = field(default_factory=lambda: random.Random(1))

    def replied(self, took_ms: float) -> None:
        """Count a report's 200."""
        self.acknowledged += 1
        if len(self.reply_ms) < _SAMPLES:
            self.reply_ms.append(took_ms)
        elif (place := self._choice.randrange(self.acknowledged)) < _SAMPLES:
            self.reply_ms[place] = took_ms

    def summary(self) -> dict[str, Any]:
        """Return it for JSON."""
        ordered = sorted(self.reply_ms)

        def quantile(share: float) -> float | None:
            return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 1) if ordered else None

        return {
            "registered": self.registered,
            "acknowledged": self.acknowledged,
            "resent": self.resent,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "unanswered": self.unanswered,
            "late": self.late,
            "done": dict(self.done),
            "reply_ms": {"p50": quantile(0.5), "p95": quantile(0.95), "p99": quantile(0.99), "max": quantile(1.0)},
        }
