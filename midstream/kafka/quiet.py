"""Keeps aiokafka from filling the log: while a broker is away it says the same dozens of times a second."""

from __future__ import annotations

import logging
import time

_INTERVAL_S = 10.0
_MAX_HELD = 256
_LOGGERS = ("aiokafka", "aiokafka.conn", "aiokafka.cluster", "aiokafka.producer.sender")


class RepeatFilter(logging.Filter):
    """Lets a message pass once in ten seconds, told apart by its text before anything is filled in."""

    def __init__(self) -> None:
        super().__init__()
        self._passed_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record passes."""
        now = time.monotonic()
        text = str(record.msg)
        if now - self._passed_at.get(text, float("-inf")) < _INTERVAL_S:
            return False
        if len(self._passed_at) >= _MAX_HELD:
            self._passed_at.clear()
        self._passed_at[text] = now
        return True


_filter = RepeatFilter()


def quiet_aiokafka() -> None:
    """Filter the loggers that repeat themselves; done again, it changes nothing."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
    # At debug level it would log every record's value.
    logging.getLogger("aiokafka.producer.producer").setLevel(logging.INFO)
