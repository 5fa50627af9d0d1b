"""Whether a batch posted now would reach ClickHouse: what ``GET /ready`` tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from midstream.logs import get_logger

_log = get_logger(__name__)

OK = "ok"
CHECK_TIMEOUT_S = 2.0
_REMEMBER_S = 1.0

Check = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the state of one or several parts by name: ``ok``, or what is the matter."""


class Readiness:
    """Runs the checks together, each under a time limit, and remembers the answer for a second.

    However many ask at once, the checks run once. Belongs to one event loop.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        timeout_s: float = CHECK_TIMEOUT_S,
        remember_s: float = _REMEMBER_S,
    ) -> None:
        self._checks = checks
        self._remember_s = remember_s
        self._timeout_s = timeout_s
        self._states: dict[str, str] = {}
        self._good_until = 0.0
        self._lock = asyncio.Lock()

    async def states(self) -> dict[str, str]:
        """Return each part's state by name."""
        async with self._lock:
            if time.monotonic() >= self._good_until:
                results = await asyncio.gather(*(self._run(name, check) for name, check in self._checks.items()))
                self._states = {part: state for result in results for part, state in result.items()}
                self._good_until = time.monotonic() + self._remember_s
            return dict(self._states)

    async def _run(self, name: str, check: Check) -> Mapping[str, str]:
        try:
            return await asyncio.wait_for(check(), self._timeout_s)
        except TimeoutError:
            return {name: f"no answer within {self._timeout_s:g} s"}
        except Exception as error:  # noqa: BLE001  a probe answers whatever a part does; the log has the rest
            _log.warning("ready.check_failed", part=name, error=f"{type(error).__name__}: {error}")
            return {name: f"failed: {type(error).__name__}"}
