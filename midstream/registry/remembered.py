"""What a process remembers of the registry: bounded, each entry until a moment."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from prometheus_client import Gauge

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Remembered(Generic[_K, _V]):
    """At most ``most`` entries, those asked for last; ``gauge`` counts them, with others of this process."""

    def __init__(self, most: int, gauge: Gauge) -> None:
        self._most = most
        self._gauge = gauge
        self._entries: OrderedDict[_K, tuple[float, _V]] = OrderedDict()

    def get(self, key: _K) -> _V | None:
        """Return what is remembered, None when nothing is."""
        held = self._entries.get(key)
        if held is None:
            return None
        if held[0] <= time.monotonic():
            self._forget(key)
            return None
        self._entries.move_to_end(key)
        return held[1]

    def put(self, key: _K, value: _V, until: float) -> None:
        """Remember a value until a moment of ``time.monotonic()``."""
        self._forget(key)  # another one may have been quicker
        self._entries[key] = (until, value)
        self._gauge.inc()
        if len(self._entries) > self._most:
            self._forget(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everything."""
        self._gauge.dec(len(self._entries))
        self._entries.clear()

    def _forget(self, key: _K) -> None:
        if self._entries.pop(key, None) is not None:
            self._gauge.dec()
