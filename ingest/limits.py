"""What requests may take: how many and how many bytes at once, and how many a second come with one credential."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from midstream.metrics import IN_FLIGHT_BYTES

_MAX_BUCKETS = 10_000


class RequestsInFlight:
    """Counts the requests under way, from their head to their reply."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._under_way = 0

    @property
    def under_way(self) -> int:
        """Requests taken up and not ended."""
        return self._under_way

    def enter(self) -> bool:
        """Take up a request, unless it is one too many. Whoever was let in has to leave."""
        if self._under_way >= self._max_requests:
            return False
        self._under_way += 1
        return True

    def leave(self) -> None:
        """End a request that was taken up."""
        self._under_way -= 1


class BytesInFlight:
    """Counts the bytes of bodies held, from the request until Kafka has acknowledged or given up."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._told = 0

    @property
    def full(self) -> bool:
        """Whether nothing more is taken now."""
        return self._held >= self._max_bytes

    def reserve(self, size: int) -> bool:
        """Take ``size`` bytes, unless that would be more than the bound."""
        if self._held + size > self._max_bytes:
            return False
        self._held += size
        return True

    def release(self, size: int) -> None:
        """Give back ``size`` bytes."""
        self._held -= size
        if self._told and not self._held:
            self.tell()

    def tell(self) -> None:
        """Tell the metric how many bytes are held. That there are none it is told at once."""
        if self._told != self._held:
            self._told = self._held
            IN_FLIGHT_BYTES.set(self._held)


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
        tokens, at = self._buckets.pop(credential, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_s)
        passes = tokens >= 1.0
        if passes:
            tokens -= 1.0
        self._buckets[credential] = (tokens, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return 0 if passes else max(1, math.ceil((1.0 - tokens) / self._per_s))
