"""The queries behind a day's file. Pure.

Only columns that events have when they are stored are read, each by its name: neither a later column nor a new value of
a dimension changes a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from midstream.exhaust.dataset import COLUMNS, Dataset, condition_sql
from midstream.exhaust.period import bounds_ms
from midstream.exhaust.variant import Variant

ORDER = "received_at, batch_id, event_index"
"""No two events share all three: an arrival is stored once."""

SETTINGS: dict[str, Any] = {
    # One thread reads for one download: the others of the machine are for what comes in.
    "max_threads": 1,
    "os_thread_priority": 15,
    "max_bytes_before_external_sort": 768 << 20,
    "output_format_parallel_formatting": 0,
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_escape_forward_slashes": 0,
    "date_time_output_format": "iso",
    "prefer_column_name_to_alias": 1,  # what is shown under a column's name must not be what is filtered by
    # An error in the middle of an answer must not look like rows of it.
    "http_write_exception_in_output_format": 0,
    "wait_end_of_query": 0,
    "cancel_http_readonly_queries_on_client_close": 1,
}

# A line break of JSON stands between tokens, where a blank is as good. No name is made here that a column could get.
_LINE = """concat(
    substring(translate(raw, '\\r\\n', '  '), 1, length(raw) - 1), ',"receipt":{"received_at":"',
    formatDateTime(received_at, '%Y-%m-%dT%H:%i:%S'), '.',
    leftPad(toString(toUnixTimestamp64Milli(received_at) % 1000), 3, '0'),
    'Z","batch_id":', toJSONString(batch_id), ',"event_index":', toString(event_index), '}}')"""


@dataclass(frozen=True, slots=True)
class Second:
    """The events of a second of receipt that a day's file holds.

    Attributes:
        at_ms: when the second begins, epoch milliseconds.
        events: how many.
        bytes: of their texts.
        first_ms: receipt of the first of them, epoch milliseconds.
    """

    at_ms: int
    events: int
    bytes: int
    first_ms: int


def where(dataset: Dataset, resource: str, variant: Variant, begin_ms: int, end_ms: int) -> tuple[str, dict[str, Any]]:
    """Return the condition of the events received from ``begin_ms`` to before ``end_ms``, and its parameters."""
    condition, parameters = condition_sql(dataset, resource)
    parts = [
        "received_at >= fromUnixTimestamp64Milli({begin_ms:Int64})",
        "received_at < fromUnixTimestamp64Milli({end_ms:Int64})",
        f"({condition})",
    ]
    parameters = {**parameters, "begin_ms": begin_ms, "end_ms": end_ms}
    if variant.eids:
        parts.append("eid IN {asked_eids:Array(String)}")
        parameters["asked_eids"] = list(variant.eids)
    if variant.channels:
        parts.append("channel IN {asked_channels:Array(String)}")
        parameters["asked_channels"] = list(variant.channels)
    return " AND ".join(parts), parameters


def seconds_of(dataset: Dataset, resource: str, variant: Variant, day: date) -> tuple[str, dict[str, Any]]:
    """Return the query of a day's seconds: rows of a :class:`Second`, in order."""
    condition, parameters = where(dataset, resource, variant, *bounds_ms(day))
    selected = (
        "toInt64(toUnixTimestamp(toStartOfSecond(received_at))) * 1000 AS at_ms, count(), sum(length(raw)), "
        "toUnixTimestamp64Milli(min(received_at))"
    )
    return f"SELECT {selected} FROM events WHERE {condition} GROUP BY at_ms ORDER BY at_ms", parameters  # noqa: S608


def lines_of(
    dataset: Dataset, resource: str, variant: Variant, begin_ms: int, end_ms: int
) -> tuple[str, dict[str, Any], str]:
    """Return the query of the JSON lines of a part of a day, its parameters and its format."""
    condition, parameters = where(dataset, resource, variant, begin_ms, end_ms)
    if dataset.columns:
        selected, form = f"SELECT {', '.join(shown_columns(dataset))}", "JSONEachRow"
    else:
        selected, form = f"SELECT {_LINE}", "TSVRaw"
    return f"{selected} FROM events WHERE {condition} ORDER BY {ORDER}", parameters, form


def columns_of(
    dataset: Dataset, resource: str, variant: Variant, begin_ms: int, end_ms: int
) -> tuple[str, dict[str, Any], str]:
    """Return the query of the columns of a part of a day, its parameters and its format: an Arrow stream."""
    condition, parameters = where(dataset, resource, variant, begin_ms, end_ms)
    names = [
        # A list has no place in CSV.
        "toJSONString(tags) AS tags" if name == "tags" and variant.format == "csv" else name
        for name in shown_columns(dataset)
    ]
    return f"SELECT {', '.join(names)} FROM events WHERE {condition} ORDER BY {ORDER}", parameters, "ArrowStream"  # noqa: S608


RECEIPT_COLUMNS = ("received_at", "batch_id", "event_index")
"""Every row has them: they order it, and tell it from every other."""


def shown_columns(dataset: Dataset) -> Sequence[str]:
    """Return the columns of a dataset's tables: those declared, or all that hold the event as it came."""
    names = dataset.columns or ALL_COLUMNS
    return [*(name for name in RECEIPT_COLUMNS if name not in names), *names]


ALL_COLUMNS = tuple(name for name in COLUMNS if name != "edata")
"""Of a dataset that declares none: `edata` is in `raw`."""
