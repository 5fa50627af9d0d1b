"""Judging whole bodies beside the event loop: one at a time, a bounded number waiting."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import msgspec

from midstream.envelope import EnvelopeError, holds_more_than, read_envelope
from midstream.events.judge import Judge
from midstream.events.report import judge_body
from midstream.inflate import InflatedTooLargeError, InflateError, inflate
from midstream.metrics import VALIDATIONS
from midstream.settings import Settings
from serve.errors import ApiError

MAX_EVENTS = 10_000
"""Events of a body that is judged. Apps send hundreds; a body of millions of tiny elements would take gigabytes."""

_MAX_WAITING = 16
_TIMEOUT_S = 20.0


class Validations:
    """Judges bodies in one thread. Belongs to one event loop."""

    def __init__(self, settings: Settings, judge: Judge) -> None:
        self._judge = judge
        self._max_inflated_bytes = settings.max_inflated_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="validate")
        self._waiting = 0

    def close(self) -> None:
        """End the thread; what waits for it is given up."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def judge(self, body: bytes) -> bytes:
        """Return the report on a body as it was sent, as JSON: ``{"valid", "invalid", "events"}``.

        Raises:
            ApiError: 400 no batch, 413 too large, 503 too many wait.
        """
        if self._waiting >= _MAX_WAITING:
            raise ApiError(503, "OVERLOADED", "too many bodies wait to be judged; try again")
        self._waiting += 1
        try:
            judging = asyncio.get_running_loop().run_in_executor(self._thread, self._judge_whole, body)
            return await asyncio.wait_for(judging, _TIMEOUT_S)
        except TimeoutError:
            raise ApiError(503, "OVERLOADED", "the body was not judged in time; try again, or fewer events") from None
        except InflatedTooLargeError as error:
            raise ApiError(413, "BODY_TOO_LARGE", str(error)) from None
        except InflateError as error:
            raise ApiError(400, "INVALID_GZIP", str(error)) from None
        except EnvelopeError as error:
            raise ApiError(400, "INVALID_BATCH", str(error)) from None
        finally:
            self._waiting -= 1

    def _judge_whole(self, body: bytes) -> bytes:
        body = inflate(body, self._max_inflated_bytes)
        if holds_more_than(body, MAX_EVENTS) or len(read_envelope(body).events) > MAX_EVENTS:
            raise ApiError(413, "TOO_MANY_EVENTS", f"up to {MAX_EVENTS} events are judged at once")
        entries = judge_body(self._judge, body)
        VALIDATIONS.inc()
        valid = sum(entry["valid"] for entry in entries)
        return msgspec.json.encode({"valid": valid, "invalid": len(entries) - valid, "events": entries})
