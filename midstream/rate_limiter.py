"""How many requests a second come with one credential."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from midstream.metrics import RATE_LIMIT_BUCKETS

_MAX_BUCKETS = 10_000


class RateLimiter:
    """A token bucket for each credential: ``per_s`` requests a second, and as many (at least one) at once.

    The 10,000 credentials seen last are held; one that comes back after being forgotten starts with a full bucket.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = max(1.0, per_s)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def retry_after_s(self, credential: str) -> int:
        """Take one request of ``credential``: 0 when it may pass, else the whole seconds after which one may."""
        if not self._per_s:
            return 0
        now = self._clock()
        held = self._buckets.pop(credential, None)
        if held is None:
            RATE_LIMIT_BUCKETS.inc()
        tokens, at = held or (self._burst, now)
        tokens = min(self._burst, tokens + (now - at) * self._per_s)
        passes = tokens >= 1.0
        if passes:
            tokens -= 1.0
        self._buckets[credential] = (tokens, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
            RATE_LIMIT_BUCKETS.dec()
        return 0 if passes else max(1, math.ceil((1.0 - tokens) / self._per_s))
