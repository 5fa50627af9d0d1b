"""An id replaced by a pseudonym in the text of an event. Pure, linear in the text's length, never recursive.

The text is not read into values and written again: only the strings that change are, so that numbers, spacing and the
order of keys stay as they came, in a text that is no JSON too.

Replaced are ``actor.id``, ``object.id`` where the object is a user, and ids of ``context.cdata`` entries of users,
where they are the id. An id of :data:`MIN_CONTAINED_CHARS` characters or more is replaced in every other string and key
as well, also where it is part of a longer one; a shorter one would be found in what has nothing to do with it. ``mid``,
``eid`` and ``ver`` of the event stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

MIN_CONTAINED_CHARS = 8

Path = tuple[str | int, ...]
"""Where a value stands in its event: keys, and places in arrays."""

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\]:,]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_KEPT: frozenset[Path] = frozenset({("mid",), ("eid",), ("ver",)})
_CDATA: Path = ("context", "cdata")
_OBJECT: Path = ("object",)
_NAMED_DEPTH = 4  # of context.cdata[0].id
_DEEPER: Path = ("",) * 5


def pseudonymise(raw: bytes | str, id_: str, pseudonym: str, within: Path = ()) -> str:
    """Return an event's JSON text, or a part of it that stands at ``within`` there, with the pseudonym in place of the
    id. A text that does not hold the id is returned as it is.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    text = raw if isinstance(raw, str) else raw.decode()
    return _rewrite(text, id_, pseudonym, within, only_strings=True)


def pseudonymise_bytes(raw: bytes, id_: str, pseudonym: str) -> bytes:
    """Return the same of what may be no event, no JSON or no UTF-8, such as a refused one: there the id (a long one) is
    replaced outside of strings too."""
    if id_.encode() not in raw and b"\\" not in raw:
        return raw
    text = raw.decode(errors="surrogateescape")
    return _rewrite(text, id_, pseudonym, (), only_strings=_is_json(raw)).encode(errors="surrogateescape")


def pseudonymise_text(text: str, id_: str, pseudonym: str) -> str:
    """Return a string that stands in an event in none of the named places."""
    return text.replace(id_, pseudonym) if len(id_) >= MIN_CONTAINED_CHARS else text


@dataclass(slots=True)
class _Container:
    is_object: bool
    at: str | int
    """The key of the value under way, or its place."""
    expects_key: bool


@dataclass(frozen=True, slots=True)
class _Found:
    """A string that holds the id."""

    start: int
    end: int
    value: str
    path: Path
    is_key: bool


def _rewrite(text: str, id_: str, pseudonym: str, within: Path, *, only_strings: bool) -> str:
    if not id_ or (id_ not in text and "\\" not in text):
        return text
    is_long = len(id_) >= MIN_CONTAINED_CHARS
    found, types = _scan(text, id_, within, is_long=is_long)
    parts: list[str] = []
    end = 0
    for one in found:
        if not (_is_named(one, id_, types) or (is_long and (one.is_key or one.path not in _KEPT))):
            continue
        between = text[end : one.start]
        parts.append(between if only_strings or not is_long else between.replace(id_, pseudonym))
        parts.append(_written(text[one.start : one.end], one.value, id_, pseudonym))
        end = one.end
    rest = text[end:]
    parts.append(rest if only_strings or not is_long else rest.replace(id_, pseudonym))
    return "".join(parts)


def _is_named(one: _Found, id_: str, types: dict[Path, str]) -> bool:
    """Tell whether this is one of the places whose value is an id, and it is this one."""
    if one.value != id_ or one.is_key or not one.path or one.path[-1] != "id":
        return False
    holder = one.path[:-1]
    return holder == ("actor",) or types.get(holder, "").lower() == "user"


def _scan(text: str, id_: str, within: Path, *, is_long: bool) -> tuple[list[_Found], dict[Path, str]]:
    """Return the strings that hold the id, and what type the event's object and the entries of its cdata are of."""
    found: list[_Found] = []
    types: dict[Path, str] = {}
    stack: list[_Container] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token[0] != '"':
            _step(stack, token)
            continue
        top = stack[-1] if stack else None
        is_key = top is not None and top.expects_key
        value = _value(token)
        if top is not None and is_key:
            top.at = value
        elif top is not None and top.at == "type":
            holder = _path(within, stack)[:-1]
            if holder == _OBJECT or (holder[:-1] == _CDATA and len(holder) > len(_CDATA)):
                types[holder] = value
        if value == id_ or (is_long and id_ in value):
            found.append(_Found(match.start(), match.end(), value, _path(within, stack), is_key))
    return found, types


def _step(stack: list[_Container], mark: str) -> None:
    if mark == "{":
        stack.append(_Container(True, "", True))
    elif mark == "[":
        stack.append(_Container(False, 0, False))
    elif not stack:
        return
    elif mark in "}]":
        stack.pop()
    elif mark == ":":
        stack[-1].expects_key = False
    elif stack[-1].is_object:
        stack[-1].expects_key = True
    else:
        stack[-1].at = int(stack[-1].at) + 1


def _path(within: Path, stack: Sequence[_Container]) -> Path:
    # Below the named places it does not matter, and a text may be nested thousands deep.
    if len(within) + len(stack) > _NAMED_DEPTH:
        return _DEEPER
    return (*within, *(one.at for one in stack))


def _value(token: str) -> str:
    """Return what a string says; as it is written, if it does not end or its escapes are none."""
    if "\\" not in token:
        return token.strip('"')
    try:
        value: str = json.loads(token, strict=False)
    except ValueError:
        return token.strip('"')
    return value


def _written(token: str, value: str, id_: str, pseudonym: str) -> str:
    """Return the string with the pseudonym in it, else as it was written as far as that can be."""
    if "\\" not in token or value == token.strip('"'):
        return token.replace(id_, pseudonym)
    changed = value.replace(id_, pseudonym)
    return json.dumps(changed, ensure_ascii=_SURROGATE.search(changed) is not None)


def _is_json(raw: bytes) -> bool:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return True
