"""From a body to its batch, without holding up the event loop: what may take long goes to one thread, bounded."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ingest.inflate import InflatedTooLargeError, InflateError, inflate, is_gzip
from ingest.replies import ErrorCode, RefusedError
from midstream.envelope import Batch, EnvelopeError, read_envelope
from midstream.settings import Settings

_INLINE_BYTES = 512 * 1024  # inflated and read in about a millisecond
_MAX_WAITING = 64
_TIMEOUT_S = 20.0
