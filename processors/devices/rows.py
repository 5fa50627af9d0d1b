"""Reports as rows of ``device_rows`` and ``device_ahead_rows``. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from midstream.devices.record import RecordError, decode_report
from midstream.devices.report import STATUS_KEY, Report
from midstream.devices.state import AHEAD_US, place_of

DEVICE_TABLE = "device_rows"
AHEAD_TABLE = "device_ahead_rows"

# The numbers of the column's Enum8.
VALUE, OVERRIDE, MESSAGE = range(3)

_DAY_US = 24 * 3600 * 1_000_000
_OLD_US = 365 * _DAY_US  # a report may have waited for long before it came to Kafka
_EARLY_US = _DAY_US
_DIGEST_BYTES = 32
_OWN_TIMES_US = range(-62_135_596_800_000_000, 253_402_300_800_000_000)  # years 1 to 9999, as ISO 8601 has them

_MS = pa.timestamp("ms", tz="UTC")
_US = pa.timestamp("us", tz="UTC")
_encode = msgspec.json.Encoder().encode


def read_record(value: bytes, append_time_ms: int) -> Report:
    """Return the report of a record of ``device.telemetry``.

    A time of receipt that is far from when Kafka appended the record is replaced by that: no collector's clock is this
    wrong, and the table is partitioned by receipt.

    Raises:
        RecordError: it is none that a collector writes.
    """
    report = decode_report(value)
    if len(report.digest) != _DIGEST_BYTES:
        raise RecordError("the digest is no SHA-256")
    if report.values.get(STATUS_KEY) != report.status:
        raise RecordError("the values do not have the status")
    if report.timestamp_us is not None and report.timestamp_us not in _OWN_TIMES_US:
        raise RecordError("the device's time is out of range")
    append_time_us = append_time_ms * 1_000
    if not -_EARLY_US <= append_time_us - report.received_at_us <= _OLD_US:
        report = msgspec.structs.replace(report, received_at_us=append_time_us)
    return report


def row_count(report: Report) -> int:
    """Return how many rows a report makes."""
    return len(report.values) + report.override + bool(report.message)


def device_rows(reports: Sequence[Report], stored_at_ms: int) -> pa.RecordBatch:
    """Return the rows of ``device_rows``: what each copy of a report says, at the time that it has by itself."""
    kinds: list[int] = []
    keys: list[str] = []
    texts: list[bytes] = []
    for report in reports:
        kinds += [VALUE] * len(report.values)
        keys += report.values
        texts += map(_encode, report.values.values())
        if report.override:
            kinds.append(OVERRIDE)
            keys.append("")
            texts.append(b"")
        if report.message:
            kinds.append(MESSAGE)
            keys.append("")
            texts.append(report.message.encode())
    of = pa.array(np.repeat(np.arange(len(reports)), [row_count(report) for report in reports]))

    def spread(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(of)

    return pa.RecordBatch.from_pydict(
        {
            "device_id": spread([report.device_id for report in reports], pa.string()),
            "kind": pa.array(kinds, pa.int8()),
            "key": pa.array(keys, pa.string()),
            "at": spread([place_of(report).at_us for report in reports], _US),
            "digest": spread([report.digest for report in reports], pa.binary(_DIGEST_BYTES)),
            "receipt_id": spread(
                [report.receipt_id if report.timestamp_us is None else "" for report in reports], pa.string()
            ),
            "value": pa.array(texts, pa.binary()),
            "own_at_us": spread([report.timestamp_us for report in reports], pa.int64()),
            "received_at": spread([report.received_at_us for report in reports], _US),
            "stored_at": pa.array(np.full(len(of), stored_at_ms), _MS),
        }
    )


def ahead_rows(reports: Sequence[Report]) -> pa.RecordBatch:
    """Return the rows of ``device_ahead_rows``: copies whose own time was too far ahead of their receipt."""
    ahead = [report for report in reports if is_ahead(report)]
    return pa.RecordBatch.from_pydict(
        {
            "device_id": pa.array([report.device_id for report in ahead], pa.string()),
            "digest": pa.array([report.digest for report in ahead], pa.binary(_DIGEST_BYTES)),
            "first_at": pa.array([place_of(report).at_us for report in ahead], _US),
        }
    )


def is_ahead(report: Report) -> bool:
    """Tell whether the time of this copy was cut short."""
    return report.timestamp_us is not None and report.timestamp_us > report.received_at_us + AHEAD_US
