"""A call that can stand still in its middle while others go on, in one order of events."""

from __future__ import annotations

import threading
from collections.abc import Callable

_MAX_WAIT_S = 60


class Strand:
    """Runs a call in a thread of its own, but only while :meth:`run` waits for it: never two at once."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._error: BaseException | None = None
        self._kill: BaseException | None = None
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if self._kill is None:
                self._call()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error
        self._has_ended = True
        self._stopped.release()

    def run(self) -> bool:
        """Go on until the call holds or ends; return whether it has ended."""
        self._go.release()
        assert self._stopped.acquire(timeout=_MAX_WAIT_S), "the call neither holds nor ends"
        return self._has_ended

    def hold(self) -> None:
        """Called inside: stand still until the next :meth:`run`."""
        self._stopped.release()
        self._go.acquire()
        if self._kill is not None:
            raise self._kill

    def kill(self, error: BaseException) -> None:
        """End the call where it stands, with ``error``."""
        self._kill = error
        self.run()
        self._thread.join(_MAX_WAIT_S)

    def result(self) -> None:
        """Raise what the call raised."""
        self._thread.join(_MAX_WAIT_S)
        if self._error is not None:
            raise self._error
