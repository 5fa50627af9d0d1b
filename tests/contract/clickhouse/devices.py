"""Reports, and what the worker makes of them, put into ClickHouse by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from midstream import topics
from midstream.clickhouse.client import ClickHouse
from midstream.devices.record import encode_report
from midstream.devices.report import Report, read_report
from processors.devices.storer import DeviceStorer
from processors.lease import Lease
from processors.store.storer import StoreRecord

NOW_US = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z, and the parts below go by months of receipt
SECOND_US = 1_000_000
_ids = count()


def stamp(at_us: int) -> str:
    """Return the moment as a device writes it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).isoformat()


def report(
    telemetries: Mapping[str, Any],
    *,
    at_s: float | None = None,
    received_s: float = 0,
    override: bool = False,
    device: str = "d",
    receipt_id: str = "",
    **more: Any,
) -> Report:
    """Return a report as a collector reads it; times are seconds from now."""
    sent: dict[str, Any] = {"status": "online", "telemetries": dict(telemetries), **more}
    if override:
        sent["override"] = True
    if at_s is not None:
        sent["timestamp"] = stamp(NOW_US + int(at_s * SECOND_US))
    return read_report(device, sent, NOW_US + int(received_s * SECOND_US), receipt_id or f"r{next(_ids)}")


def records(values: Iterable[bytes], appended_us: int = NOW_US) -> list[StoreRecord]:
    """Return records of ``device.telemetry``."""
    return [StoreRecord(topics.DEVICE.name, 0, next(_ids), appended_us // 1000, value) for value in values]


def put(clickhouse: ClickHouse, reports: Sequence[Report], appended_us: int = NOW_US) -> None:
    """Store reports together, as the worker does."""
    storer = DeviceStorer(clickhouse, Lease(60_000), 1, clock_ms=lambda: NOW_US // 1000)
    storer.store(records((encode_report(one) for one in reports), appended_us))
