"""The reference implementation of JSON Schema, made to look at some places of an event only.

For events of which is known where their faults are. It finds the errors that it would find if it looked everywhere, in
the same order: what it passes over has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

Path = Sequence[str | int]


class _Marked(dict[str, Any]):
    """An object of an event, with the keys of those members that have a fault in them."""

    faulty: Set[str | int]


class _MarkedArray(list[Any]):
    """An array, with the places of such elements."""

    faulty: Set[str | int]


def mark(value: Any, places: Iterable[Path], level: int = 0) -> Any:
    """Copy ``value`` along the way to each of ``places``, for :data:`FocusedValidator`; the rest is as it was.

    Args:
        value: an event, or what is in it after ``level`` steps of the way to each place.
        places: paths from the event to the values (of any kind) that have a fault.
        level: see there.
    """
    if not isinstance(value, dict | list):
        return value
    steps: dict[Any, list[Path]] = {}  # keys, or places in an array
    for place in places:
        if len(place) > level:
            steps.setdefault(place[level], []).append(place)
    copy: Any = _Marked(value) if isinstance(value, dict) else _MarkedArray(value)
    copy.faulty = steps.keys()
    for step, further in steps.items():
        copy[step] = mark(value[step], further, level + 1)
    return copy


def _focused_properties(
    validator: Any, properties: dict[str, Any], instance: Any, schema: Any
) -> Iterator[ValidationError]:
    """Do what the keyword does, but pass over members without a fault."""
    if isinstance(instance, _Marked):
        properties = {name: inner for name, inner in properties.items() if name in instance.faulty}
    yield from Draft202012Validator.VALIDATORS["properties"](validator, properties, instance, schema)


def _focused_items(validator: Any, items: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Likewise of elements."""
    if isinstance(instance, _MarkedArray) and "prefixItems" not in schema:
        for index in sorted(cast("Set[int]", instance.faulty)):
            yield from validator.descend(instance[index], items, path=index)
    else:
        yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema)


FocusedValidator = extend(  # type: ignore[no-untyped-call]  # it has no types
    Draft202012Validator, {"properties": _focused_properties, "items": _focused_items}, version=None
)
"""The reference, looking where the fast validator found faults: for events that :func:`mark` returns."""
