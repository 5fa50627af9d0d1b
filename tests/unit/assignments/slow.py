"""What a body gives, by Python's own parser: the slow reference of `midstream.assignments.fields`."""

from __future__ import annotations

import json
import math
from typing import Any

from midstream.assignments.duration import DurationError, read_duration
from midstream.assignments.fields import FIELDS

TIME = "total_time"
REFUSED = "no JSON"


class Constant:
    """NaN, or an infinity."""


class Number(str):
    """The digits of a number."""


class NoJsonError(Exception):
    pass


def read_slowly(body: bytes) -> Any:
    """Return the fields that a body gives (objects as Python's), the errors by field, or REFUSED."""
    try:
        value = json.loads(
            body.decode() or "{}",
            parse_constant=lambda _: Constant(),
            parse_int=Number,
            parse_float=Number,
        )
        _check_strings(body)
        _check_constants(body)
    except (ValueError, RecursionError, NoJsonError):
        return REFUSED
    if not isinstance(value, dict):
        return REFUSED if _has_constant(value) else {"non_field_errors": _name(value)}
    values: dict[str, Any] = {}
    errors: dict[str, str] = {}
    try:
        for name, sent in value.items():
            if name not in FIELDS:
                if _has_constant(sent):
                    raise NoJsonError
                continue
            if name in ("telemetry", "metrics"):
                if not _is_kept(sent):
                    raise NoJsonError
                if sent is not None and not isinstance(sent, dict):
                    errors[name] = _name(sent)
                    continue
                values[name] = sent
                continue
            if isinstance(sent, dict | list) and _has_constant(sent):
                raise NoJsonError
            try:
                values[name] = None if sent is None else _time(sent) if name == TIME else _number(name, sent)
            except ValueError as error:
                errors[name] = str(error)
    except NoJsonError:
        return REFUSED
    return {"errors": errors} if errors else values


def _check_strings(body: bytes) -> None:
    def check(value: Any) -> None:
        if isinstance(value, str):
            value.encode()  # halves of surrogate pairs have no UTF-8
        elif isinstance(value, dict):
            for key, item in value.items():
                check(key)
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)

    # As pairs, so that a key's earlier values are looked at too.
    check(
        json.loads(body.decode() or "{}", object_pairs_hook=lambda pairs: [list(pair) for pair in pairs], parse_int=str)
    )


def _check_constants(body: bytes) -> None:
    """Refuse what is no JSON, in a value too that a later one of the same key replaces."""
    pairs = json.loads(
        body.decode() or "{}",
        object_pairs_hook=lambda pairs: tuple(list(pair) for pair in pairs),
        parse_constant=lambda _: Constant(),
        parse_int=str,
    )
    if isinstance(pairs, tuple):
        for name, value in pairs:
            if _has_constant(value) and not (isinstance(value, Constant) and name in FIELDS[2:]):
                raise NoJsonError


def _has_constant(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_constant, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_constant, value))
    return isinstance(value, Constant)


def _is_kept(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_kept, value.values()))
    if isinstance(value, list):
        return all(map(_is_kept, value))
    return not isinstance(value, Constant) and not (isinstance(value, Number) and math.isinf(float(value)))


def _name(value: Any) -> str:
    if isinstance(value, Number):
        return "float" if set(value) & set(".eE") else "int"
    return type(value).__name__


def _number(name: str, sent: Any) -> float:
    if not isinstance(sent, str) or (len(sent) > 1_000 and not isinstance(sent, Number)):
        raise ValueError("A valid number is required.")
    try:
        sent.encode("ascii")
        if "_" in sent:
            raise ValueError
        number = float(sent)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("A valid number is required.")
    if name != "metrics_algo_version":
        if number > 100:
            raise ValueError("Ensure this value is less than or equal to 100.")
        if number < 0:
            raise ValueError("Ensure this value is greater than or equal to 0.")
    return number


def _time(sent: Any) -> int:
    if isinstance(sent, Number):
        is_float = bool(set(sent) & set(".eE"))
        if is_float and math.isinf(float(sent)):
            sent = "-1" if sent.startswith("-") else "9" * 30
            is_float = False
        return read_duration(float(sent) if is_float else int(sent))
    if not isinstance(sent, str):
        raise DurationError("Duration has wrong format. Use one of these formats instead: [HH:MM:SS, PT...].")
    return read_duration(sent)
