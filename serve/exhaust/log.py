"""The log of downloads: rows of ClickHouse's table ``exhaust_downloads``, written some seconds later, many at once."""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime

import pyarrow as pa

from midstream.clickhouse.client import ClickHouseError
from midstream.logs import get_logger
from midstream.metrics import EXHAUST_LOG_DROPPED
from midstream.settings import Settings
from serve.calls import CallError, Calls
from serve.finder import LazyClient
from serve.repeating import Repeating

_log = get_logger(__name__)

_MAX_ROWS = 10_000
_WRITE_S = 2.0
_TABLE = "exhaust_downloads"


@dataclass(frozen=True, slots=True)
class LogRow:
    """A request that was let in.

    Attributes:
        at: when it came, UTC.
        first_byte: of the archive that it asked for; 0 without a range.
        what: archive or manifest.
        complete: all that was asked for was sent.
        seconds: until it ended.
        client: the address that it came from.
    """

    at: datetime
    licence: str
    dataset: str
    resource: str
    first_day: date
    last_day: date
    format: str
    eids: list[str]
    channels: list[str]
    what: str
    method: str
    status: int
    first_byte: int
    sent_bytes: int
    complete: bool
    seconds: float
    client: str


_SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ms", "UTC")),
        *((name, pa.string()) for name in ("licence", "dataset", "resource")),
        *((name, pa.date32()) for name in ("first_day", "last_day")),
        ("format", pa.string()),
        *((name, pa.list_(pa.string())) for name in ("eids", "channels")),
        *((name, pa.string()) for name in ("what", "method")),
        ("status", pa.uint16()),
        *((name, pa.uint64()) for name in ("first_byte", "sent_bytes")),
        ("complete", pa.bool_()),
        ("seconds", pa.float64()),
        ("client", pa.string()),
    ]
)


class DownloadLog:
    """Belongs to one event loop. What ClickHouse does not take at once waits, as far as there is room."""

    def __init__(self, settings: Settings) -> None:
        self._client = LazyClient(settings)
        self._calls = Calls("download-log", threads=1, timeout_s=settings.clickhouse_timeout_ms / 1000)
        self._rows: deque[LogRow] = deque()
        self._under_way: tuple[str, list[LogRow]] | None = None
        self._writing = Repeating("download-log", self._write, _WRITE_S, at_once=False)

    def start(self) -> None:
        """Begin to write."""
        self._writing.start()

    async def close(self) -> None:
        """Write what waits, once, and close."""
        await self._writing.close()
        if self._under_way is not None:
            await self._write()
        await self._write()
        self._calls.close()
        self._client.close()

    def note(self, row: LogRow) -> None:
        """Have a row written; never waits."""
        if len(self._rows) >= _MAX_ROWS:
            EXHAUST_LOG_DROPPED.inc()
            return
        self._rows.append(row)

    async def _write(self) -> None:
        """Write what waits. What may have been written is written again under the same token, so that it is there
        once."""
        if self._under_way is None:
            if not self._rows:
                return
            self._under_way = (uuid.uuid4().hex, list(self._rows))
        token, rows = self._under_way
        try:
            await self._calls.run(self._insert, token, rows)
        except (ClickHouseError, CallError) as error:
            _log.warning("exhaust.log_not_written", rows=len(rows), error=str(error)[:300])
            return
        self._under_way = None
        for _ in rows:
            self._rows.popleft()

    def _insert(self, token: str, rows: list[LogRow]) -> None:
        batch = pa.RecordBatch.from_pylist([asdict(row) for row in rows], _SCHEMA)
        body = pa.BufferOutputStream()
        with pa.ipc.new_stream(body, _SCHEMA) as writer:
            writer.write_batch(batch)
        names = [field.name for field in fields(LogRow)]
        self._client.connected().insert_stream(
            _TABLE, names, body.getvalue().to_pybytes(), token, tries=1, before_try=lambda _: None
        )
