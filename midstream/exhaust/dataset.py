"""Datasets: what a declaration can say, and which events are a resource's. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a dataset: it stands in paths and in file names."""

TAGS: Final = "tags"
"""The rule by which an event is a resource's if one of its tags is the resource's hash."""

RESOURCE_CHARS = 128
MAX_RETENTION_DAYS = 36_500

_MAX_CONDITIONS = 16
_MAX_VALUES = 256
_MAX_VALUE_CHARS = 256
_MAX_FILTER_BYTES = 4_096
"""Of all values in UTF-8: the parameters of a query travel in its URL."""

_MAX_SHOWN = 80
"""Characters of what is not known, in a message."""

_HASH = re.compile(r"[0-9a-f]{32}(?:[0-9a-f]{8})?")
HEAD_CHARS = 32
"""Of a hash of 40 digits: those that name the same resource."""

_WORD = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._:@+=~-]{{0,{RESOURCE_CHARS - 1}}}")
"""A resource that is no hash: it stands in paths and in file names."""

RESOURCE_COLUMNS = (
    "eid",
    "channel",
    "env",
    "did",
    "sid",
    "actor_id",
    "actor_type",
    "pdata_id",
    "pdata_pid",
    "pdata_ver",
    "object_id",
    "object_type",
    "object_ver",
)
"""Columns of events whose value can be what names a resource."""

FILTER_COLUMNS = (
    *RESOURCE_COLUMNS,
    "mid",
    "ver",
    "edata_type",
    "edata_id",
    "edata_pageid",
    "edata_subtype",
    "batch_id",
    "tags",
)

# Neither what sync denormalises anew, nor the moment of storing: a closed day never changes.
COLUMNS = (
    "mid",
    "eid",
    "ver",
    "ets",
    "ets_original",
    "received_at",
    "sent_at",
    "channel",
    "env",
    "did",
    "sid",
    "actor_id",
    "actor_type",
    "pdata_id",
    "pdata_pid",
    "pdata_ver",
    "object_id",
    "object_type",
    "object_ver",
    "object_rollup",
    "context_rollup",
    "cdata",
    "tags",
    "edata",
    "edata_type",
    "edata_id",
    "edata_pageid",
    "edata_subtype",
    "edata_duration",
    "batch_id",
    "event_index",
    "late",
    "raw",
)
"""Columns of events that a dataset can be made of."""

Operator = Literal["in", "not_in"]


class DatasetError(ValueError):
    """A declaration that cannot be.

    Attributes:
        place: where in it, such as ``filter[0].column``; "" for the whole.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.place = place


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column of an event is, or is not; of ``tags``: what one of them is, or none."""

    column: str
    operator: Operator
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset. An event belongs to it when all conditions of the filter hold."""

    name: str
    resource: str
    """The rule: :data:`TAGS`, or one of :data:`RESOURCE_COLUMNS`."""
    filter: tuple[Condition, ...] = ()
    columns: tuple[str, ...] = ()
    """Empty: the events as they came."""
    retention_days: int = 0
    """0: for ever."""


D001: Final = Dataset("D001", TAGS)
"""Raw events of a partner: declared by default."""


def read_declaration(obj: object) -> Dataset:
    """Return the dataset of a declaration: a JSON object, parsed.

    Raises:
        DatasetError: it cannot be.
    """
    members = _members(obj, "", {"name", "resource"}, {"filter", "columns", "retention_days"})
    name = members["name"]
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise DatasetError("name", "takes 1 to 64 letters, digits, dots, _ and -, a letter or digit first")
    resource = members["resource"]
    if not isinstance(resource, str) or (resource != TAGS and resource not in RESOURCE_COLUMNS):
        raise DatasetError("resource", f"is one of {', '.join((TAGS, *RESOURCE_COLUMNS))}")
    conditions = _list(members.get("filter", []), "filter", _MAX_CONDITIONS)
    filter_ = tuple(_condition(one, f"filter[{index}]") for index, one in enumerate(conditions))
    if sum(len(value.encode()) for one in filter_ for value in one.values) > _MAX_FILTER_BYTES:
        raise DatasetError("filter", f"its values take {_MAX_FILTER_BYTES} bytes at the most")
    columns = _list(members.get("columns", []), "columns", len(COLUMNS))
    for index, column in enumerate(columns):
        _check_one_of(column, COLUMNS, f"columns[{index}]")
        if column in columns[:index]:
            raise DatasetError(f"columns[{index}]", "is there twice")
    days = members.get("retention_days", 0)
    if not isinstance(days, int) or isinstance(days, bool) or not 0 <= days <= MAX_RETENTION_DAYS:
        raise DatasetError("retention_days", f"is a number from 0 (for ever) to {MAX_RETENTION_DAYS}")
    return Dataset(name, resource, filter_, tuple(columns), days)


def to_declaration(dataset: Dataset) -> dict[str, Any]:
    """Return the declaration of a dataset, which :func:`read_declaration` takes."""
    return {
        "name": dataset.name,
        "resource": dataset.resource,
        "filter": [{"column": one.column, one.operator: list(one.values)} for one in dataset.filter],
        "columns": list(dataset.columns),
        "retention_days": dataset.retention_days,
    }


def digest(dataset: Dataset) -> str:
    """Return 64 hex digits that two datasets share when they give the same bytes of the same events.

    Neither the name nor the retention counts, nor the order of conditions and of their values.
    """
    conditions = sorted([one.column, one.operator, sorted(set(one.values))] for one in dataset.filter)
    facts = {"resource": dataset.resource, "filter": conditions, "columns": dataset.columns}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def resource_key(dataset: Dataset, resource: str) -> str | None:
    """Return the canonical form of what names a resource, fit for paths and file names; None when it cannot be one.

    By tags: 32 or 40 hex digits, in lower case. By a column: up to 128 ASCII characters without / and blanks.
    """
    if len(resource) > RESOURCE_CHARS:  # before any work on it
        return None
    if dataset.resource == TAGS:
        key = resource.lower()
        return key if _HASH.fullmatch(key) else None
    return resource if _WORD.fullmatch(resource) else None


def resource_head(key: str) -> str:
    """Return the start of a key, which keys of the same resource share by whatever rule."""
    return key[:HEAD_CHARS]


def same_resource(rule: str, key: str, other: str) -> bool:
    """Whether two canonical keys name the same resource: 32 digits of a hash name the one of 40 that begins so."""
    if rule != TAGS or len(key) == len(other):
        return key == other
    return resource_head(key) == resource_head(other)


def condition_sql(dataset: Dataset, key: str) -> tuple[str, dict[str, Any]]:
    """Return which rows of the view ``events`` are a resource's, on all days.

    Args:
        dataset: whose.
        key: a resource of it as :func:`resource_key` returns it.

    Returns:
        A condition for WHERE, in brackets, and the parameters ``resource*`` and ``filter_*`` in it.
    """
    conditions, parameters = _resource_sql(dataset.resource, key)
    for index, one in enumerate(dataset.filter):
        name = f"filter_{index}"
        values = f"{{{name}:Array(String)}}"
        found = f"hasAny({one.column}, {values})" if one.column == "tags" else f"{one.column} IN {values}"
        conditions.append(found if one.operator == "in" else f"NOT ({found})")
        parameters[name] = list(one.values)
    return f"({' AND '.join(conditions)})", parameters


def _resource_sql(rule: str, key: str) -> tuple[list[str], dict[str, Any]]:
    if rule != TAGS:
        return [f"{rule} = {{resource:String}}"], {"resource": key}
    # lower() of ClickHouse knows ASCII alone, as hex digits want it.
    if len(key) > HEAD_CHARS:
        condition = "hasAny(arrayMap(tag -> lower(tag), tags), {resources:Array(String)})"
        return [condition], {"resources": [key, resource_head(key)]}
    condition = (
        "arrayExists(tag -> startsWith(lower(tag), {resource:String}) AND match(tag, {resource_form:String}), tags)"
    )
    return [condition], {"resource": key, "resource_form": rf"^[0-9A-Fa-f]{{{HEAD_CHARS}}}([0-9A-Fa-f]{{8}})?$"}


def _members(obj: object, place: str, needed: set[str], others: set[str]) -> dict[str, Any]:
    if not isinstance(obj, dict):
        raise DatasetError(place, "is no JSON object")
    for name in obj:
        if name not in needed and name not in others:
            known = ", ".join(sorted(needed | others))
            raise DatasetError(_place(place, repr(name)[:_MAX_SHOWN]), f"there is no such member; there are {known}")
    for name in sorted(needed):
        if name not in obj:
            raise DatasetError(_place(place, name), "is missing")
    return obj


def _place(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _list(value: object, place: str, most: int) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise DatasetError(place, f"is a list of {most} members at the most")
    return value


def _check_one_of(value: object, choices: Sequence[str], place: str) -> None:
    if not isinstance(value, str) or value not in choices:
        raise DatasetError(place, f"is one of {', '.join(choices)}")


def _condition(obj: object, place: str) -> Condition:
    members = _members(obj, place, {"column"}, {"in", "not_in"})
    _check_one_of(members["column"], FILTER_COLUMNS, f"{place}.column")
    operators: list[Operator] = [name for name in ("in", "not_in") if name in members]
    if len(operators) != 1:
        raise DatasetError(place, "has one of in and not_in")
    (operator,) = operators
    values = _list(members[operator], f"{place}.{operator}", _MAX_VALUES)
    if not values:
        raise DatasetError(f"{place}.{operator}", "is empty")
    for index, value in enumerate(values):
        # No control character and no lone surrogate can be in a query's parameter.
        if not isinstance(value, str) or len(value) > _MAX_VALUE_CHARS or not value.isprintable():
            reason = f"is text of {_MAX_VALUE_CHARS} printable characters at the most"
            raise DatasetError(f"{place}.{operator}[{index}]", reason)
    return Condition(members["column"], operator, tuple(values))
