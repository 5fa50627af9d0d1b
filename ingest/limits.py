"""What requests may take: how many and how many bytes at once."""

from __future__ import annotations

from midstream.metrics import IN_FLIGHT_BYTES


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
