"""From a body to its batch without holding up the event loop: what may take long goes to one thread, bounded."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ingest.replies import ErrorCode, RefusedError
from midstream.envelope import Batch, EnvelopeError, holds_more_than, read_envelope, read_quickly
from midstream.inflate import InflatedTooLargeError, InflateError, inflate
from midstream.settings import Settings

_INLINE_BYTES = 512 * 1024  # inflated and parsed in about a millisecond
_MAX_WAITING = 64
_TIMEOUT_S = 20.0

_Fault = tuple[ErrorCode, str]
"""Why a body is refused, and the message if the code has no better one."""


class EnvelopeReader:
    """Reads bodies: ordinary ones at once, large ones and those no parser takes one after the other in a thread."""

    def __init__(self, settings: Settings) -> None:
        self._max_bytes = settings.max_inflated_bytes
        self._max_events = settings.max_batch_events
        self._inline_bytes = min(_INLINE_BYTES, self._max_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="envelope")
        self._waiting = 0

    def close(self) -> None:
        """End the thread; what waits for it is given up."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def read(self, body: bytes) -> Batch:
        """Return the batch of a body as it was sent. It may have more events than settings allow, but not millions.

        Raises:
            RefusedError: 400, 413 or 503.
        """
        read = self._read_inline(body) or await self._read_in_thread(body)
        if not isinstance(read, Batch):
            raise RefusedError(*read)
        return read

    def _read_inline(self, body: bytes) -> Batch | _Fault | None:
        try:
            return read_quickly(inflate(body, self._inline_bytes))
        except InflatedTooLargeError:
            return None
        except InflateError as error:
            return ErrorCode.INVALID_GZIP, str(error)
        except EnvelopeError as error:
            return ErrorCode.INVALID_BATCH, str(error)

    async def _read_in_thread(self, body: bytes) -> Batch | _Fault:
        if self._waiting >= _MAX_WAITING:
            raise RefusedError(ErrorCode.OVERLOADED)
        self._waiting += 1
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._thread, self._read_whole, body)
            return await asyncio.wait_for(reading, _TIMEOUT_S)
        except TimeoutError:
            raise RefusedError(ErrorCode.OVERLOADED) from None
        finally:
            self._waiting -= 1

    def _read_whole(self, body: bytes) -> Batch | _Fault:
        # A fault is returned: an exception that crosses threads is in a cycle with the frames that it came through,
        # and they would keep the inflated body until the garbage collector comes by.
        try:
            inflated = inflate(body, self._max_bytes)
            if holds_more_than(inflated, self._max_events):
                return ErrorCode.BODY_TOO_LARGE, ""
            return read_envelope(inflated)
        except InflatedTooLargeError:
            return ErrorCode.BODY_TOO_LARGE, ""
        except InflateError as error:
            return ErrorCode.INVALID_GZIP, str(error)
        except EnvelopeError as error:
            return ErrorCode.INVALID_BATCH, str(error)
