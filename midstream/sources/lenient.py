"""A page that is JSON but for some rows: a NaN in them, half of a surrogate pair, bytes that are not UTF-8. Pure.

Such rows are replaced by null, so that the others can be read as they are written.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec


class Unfit(NamedTuple):
    """A row that is not JSON: why, and whose it is, None when that cannot be told."""

    reason: str
    id: str | None


class _NoValue(NamedTuple):
    """What stands where JSON has no value."""

    reason: str


def without_unfit(body: bytes, pointer: str, id_field: str) -> tuple[bytes, dict[int, Unfit]]:
    """Return the body with null for each row that is not JSON, and these rows by their place in the list.

    Raises:
        ValueError, RecursionError: the body is not JSON in another place than a row.
    """
    whole = json.loads(
        body.decode("utf-8", "surrogateescape"),
        parse_int=msgspec.Raw,
        parse_float=msgspec.Raw,
        parse_constant=lambda text: _NoValue(f"{text} is no value of JSON"),
    )
    rows = _at(whole, pointer)
    unfit: dict[int, Unfit] = {}
    for index, row in enumerate(rows if isinstance(rows, list) else []):
        if reason := _fault(row):
            unfit[index] = Unfit(reason, _id(row, id_field))
            rows[index] = None
    if not unfit or _fault(whole):
        raise ValueError("what is not JSON is in no row")
    return msgspec.json.encode(whole), unfit


def _at(value: Any, pointer: str) -> Any:
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isascii() and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _fault(value: Any) -> str:
    """Return what of a value is not JSON, "" when all is."""
    stack = [value]
    while stack:
        here = stack.pop()
        if isinstance(here, _NoValue):
            return here.reason
        if isinstance(here, str) and not here.isascii() and not _is_text(here):
            return "a text is not UTF-8, or holds a lone surrogate"
        if isinstance(here, dict):
            stack.extend(here)
            stack.extend(here.values())
        elif isinstance(here, list):
            stack.extend(here)
    return ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _id(row: Any, id_field: str) -> str | None:
    value = row.get(id_field) if isinstance(row, dict) else None
    if isinstance(value, msgspec.Raw):
        value = bytes(value).decode()
    return value if isinstance(value, str) and _is_text(value) else None
