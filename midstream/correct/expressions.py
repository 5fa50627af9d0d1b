"""Which columns of an event come from which object, and SQL that says what they become.

The same expressions stand in the view ``events`` (``schemas/clickhouse/0012_corrections.sql``), where the overlay is a
tuple of one scalar subquery; a contract test holds that an event reads the same overlaid and updated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from midstream.dimensions import DimensionType

Overlay = Callable[[str], str]
"""Gives SQL for a part of the overlay: ``fill``, ``ids``, ``texts``, ``locations`` or ``states``."""


class Copy(NamedTuple):
    """A column of events that is a copy of an object's attributes.

    Attributes:
        column: the copy, and its key in ``flags``.
        id: column with the object's id.
        applies: SQL, which events may refer to one; "" for all.
    """

    column: str
    id: str
    applies: str = ""


COPIES: dict[DimensionType, tuple[Copy, ...]] = {
    DimensionType.USER: (Copy("user", "actor_id", "actor_type = 'User'"),),
    DimensionType.DEVICE: (Copy("device", "did"),),
    DimensionType.CONTENT: (Copy("content", "object_id"), Copy("collection", "collection_id")),
    DimensionType.ORGANISATION: (Copy("organisation", "organisation_id"),),
    DimensionType.BATCH: (Copy("batch", "course_batch_id"),),
}
"""What events hold of objects of each type; other types are for analysts' own joins."""

_STATES = ("found", "missing", "stale")


def flag_is(column: str, *states: str) -> str:
    """Return SQL: the event's flag of this copy is one of ``states``."""
    return " OR ".join(f'position(flags, \'"{column}":"{state}"\') > 0' for state in states)


def is_met(copy: Copy, overlay: Overlay) -> str:
    """Return SQL: the overlay says what the copy becomes."""
    applies = f"{copy.applies} AND " if copy.applies else ""
    fills = f"(NOT {overlay('fill')} OR {flag_is(copy.column, 'missing', 'stale')})"
    return f"{applies}{fills} AND {_new(copy, overlay, 'states')} != ''"


def new_copy(copy: Copy, overlay: Overlay) -> str:
    """Return SQL: what the copy becomes, or is."""
    return f"if({is_met(copy, overlay)}, {_new(copy, overlay, 'texts')}, {copy.column})"


def new_flags(type_: DimensionType, overlay: Overlay) -> str:
    """Return SQL: what ``flags`` become, or are."""
    flags = "flags"
    for copy in COPIES[type_]:
        state = _new(copy, overlay, "states")
        found, missing = (_flagged(flags, copy.column, name) for name in ("found", "missing"))
        flags = f"multiIf(NOT ({is_met(copy, overlay)}), {flags}, {state} = 'found', {found}, {missing})"
    return flags


def new_location(type_: DimensionType, overlay: Overlay) -> str | None:
    """Return SQL: what ``location`` becomes, or is; None where the type has no part in it.

    A user's location goes before the device's, as in ``processors.store.denormalise``.
    """
    (copy, *_) = COPIES[type_]
    if type_ is DimensionType.USER:
        own = _new(copy, overlay, "locations")
        return f"multiIf(NOT ({is_met(copy, overlay)}), location, {own} != '', {own}, {device_location('device')})"
    if type_ is DimensionType.DEVICE:
        is_users = 'position(location, \'"from":"user-profile"\') > 0'
        return f"if({is_met(copy, overlay)} AND NOT {is_users}, {_new(copy, overlay, 'locations')}, location)"
    return None


def device_location(device: str) -> str:
    """Return SQL: the location that a device's attributes declare, as JSON text, or "".

    As :func:`midstream.dimension_location.derive_location`.
    """

    def part(place: str, name: str) -> str:
        at = f"{device}, '{place}', '{name}'"
        return f"if(JSONType({at}) = 'String', JSONExtractString({at}), '')"

    declared, by_ip = (
        (part(place, "state"), part(place, "district")) for place in ("userDeclaredLocation", "ipLocation")
    )

    def text(place: tuple[str, str], source: str) -> str:
        state, district = (f"replaceAll(toJSONString({part}), '\\\\/', '/')" for part in place)
        return f'concat(\'{{"state":\', {state}, \',"district":\', {district}, \',"from":"{source}"}}\')'

    return (
        f"multiIf({declared[0]} != '' OR {declared[1]} != '', {text(declared, 'user-declared')}, "
        f"{by_ip[0]} != '' OR {by_ip[1]} != '', {text(by_ip, 'ip-resolved')}, '')"
    )


def _new(copy: Copy, overlay: Overlay, part: str) -> str:
    return f"transform({copy.id}, {overlay('ids')}, {overlay(part)}, '')"


def _flagged(flags: str, column: str, state: str) -> str:
    for other in _STATES:
        if other != state:
            flags = f'replaceOne({flags}, \'"{column}":"{other}"\', \'"{column}":"{state}"\')'
    return flags
