"""What is wrong with an event that breaks its schema: the error of the reference implementation that says most.

The reference takes its time: it follows every value, and makes a validator for each. So the fast validator says first
where the faults are, and the reference looks there alone.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, cast

import jsonschema_rs
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator

from midstream.events.focus import mark
from midstream.events.schemas import EventSchema

_MAX_ERRORS = 100
_SHOWN_ELEMENTS = 8


def find_fault(schema: EventSchema, event: dict[str, Any], *, is_large: bool) -> tuple[list[str | int], str] | None:
    """Return the path of the field to correct, and the message; None if the event is valid.

    Args:
        schema: of the event's eid.
        event: as parsed.
        is_large: its text is some kilobytes long or more.

    Raises:
        RecursionError: the event is nested deeper than its schema can be followed.
    """
    if schema.fast is not None and schema.focused is not None and not is_large:
        found = list(schema.fast.iter_errors(event))
        if len(found) == 1 and found[0].kind.name == "required":
            # The fault that clients make most. Its wording is known, and the reference would take ten times as long.
            name = found[0].kind.as_dict()["property"]
            return [*found[0].instance_path, name], f"{name!r} is a required property"
        error = _best_error(schema.focused, mark(event, [one.instance_path for one in found]))
        if error is not None:
            return [*error.absolute_path, *_field(error)], error.message
    error, path = _find_error(schema, event, is_large=is_large)
    return None if error is None else ([*path, *_field(error)], error.message)


def _find_error(
    schema: EventSchema, event: dict[str, Any], *, is_large: bool
) -> tuple[ValidationError | None, list[str | int]]:
    """Return the error of the reference that says most, and its path; None if the event is valid."""
    if is_large and schema.fast is not None:
        # The reference takes seconds for a hundred thousand elements. The fast validator finds where the fault is, and
        # the reference is shown that element, and of arrays elsewhere the first few.
        try:
            schema.fast.validate(event)
        except jsonschema_rs.ValidationError as found:
            place = list(found.instance_path)
            error = _best_error(schema.reference, _thin(event, place, 0))
            if error is not None:
                return error, _path_before_thinning(error, place)
    error = _best_error(schema.reference, event)
    return error, [] if error is None else list(error.absolute_path)


def _best_error(validator: Validator, event: dict[str, Any]) -> ValidationError | None:
    error: ValidationError | None = best_match(islice(validator.iter_errors(event), _MAX_ERRORS))
    return error


def _thin(value: Any, place: list[str | int], level: int | None) -> Any:
    """Copy ``value`` with few elements of its arrays; of an array on the way to ``place``, with that element alone."""
    step = place[level] if level is not None and level < len(place) else None
    if isinstance(value, dict):
        return {
            key: _thin(item, place, level + 1 if level is not None and key == step else None)
            if isinstance(item, dict | list)
            else item
            for key, item in value.items()
        }
    if isinstance(value, list):
        if level is not None and isinstance(step, int):
            return [_thin(value[step], place, level + 1)]
        return [_thin(item, place, None) for item in value[:_SHOWN_ELEMENTS]]
    return value


def _path_before_thinning(error: ValidationError, place: list[str | int]) -> list[str | int]:
    path = list(error.absolute_path)
    for level, (part, step) in enumerate(zip(path, place, strict=False)):
        if isinstance(step, int):
            path[level] = step
        elif part != step:
            break
    return path


def _field(error: ValidationError) -> list[str]:
    """Return the key that an error is about but that its path does not name: one that is missing, or too many."""
    if error.validator == "required":
        required: list[str] = list(cast("list[str]", error.validator_value))
        return [name for name in required if error.message.startswith(f"{name!r} is ")][:1]
    if error.validator == "additionalProperties" and error.validator_value is False:
        schema = cast("dict[str, Any]", error.schema)
        if "patternProperties" not in schema:
            known = schema.get("properties", {})
            return sorted(key for key in cast("dict[str, Any]", error.instance) if key not in known)[:1]
    return []
