"""A valid event as ``validate`` makes a row of it: its envelope in types.

The types take what ``schemas/telemetry/3.0/envelope.json`` takes, or less: a test holds them against it. They drop
unknown keys, and of a doubled key the last counts; whoever decodes must look for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import orjson

from midstream.events.times import normalise_ets, original_ets


class _Absent(str):
    """Equal to "", and never what a decoder makes of a text."""

    __slots__ = ()


# Fields that are absent hold these very objects, so that ``omit_defaults``, which compares by identity, leaves out
# what did not stand in the text and nothing else.
_ABSENT = _Absent()

_NO_JSON = msgspec.Raw(b"")
_Filled = Annotated[str, msgspec.Meta(min_length=1)]


class Cdata(TypedDict):
    """An element of ``context.cdata``, its keys in the order of the text."""

    type: str
    id: str


class Rollup(TypedDict, total=False):
    """``object.rollup``, likewise."""

    l1: str
    l2: str
    l3: str
    l4: str


class Actor(msgspec.Struct, gc=False):
    """``actor``."""

    id: str
    type: str


class Pdata(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """``context.pdata``."""

    id: str
    pid: str = _ABSENT
    ver: str = _ABSENT


class Context(msgspec.Struct, gc=False, omit_defaults=True):
    """``context``."""

    channel: _Filled
    env: str
    pdata: Pdata = Pdata(_ABSENT)
    sid: str = _ABSENT
    did: str = _ABSENT
    cdata: list[Cdata] | None = None
    rollup: dict[str, str] | None = None


class Thing(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """``object``."""

    id: str = _ABSENT
    type: str = _ABSENT
    ver: str = _ABSENT
    rollup: Rollup | None = None


class Envelope(msgspec.Struct, gc=False, omit_defaults=True):
    """An event. Events with ``ets`` in another unit, or with odd rollups, come by :func:`from_parsed` alone."""

    eid: str
    ets: Annotated[int, msgspec.Meta(ge=1_000_000_000_000, lt=10_000_000_000_000)]
    ver: Literal["3.0", "3.1"]
    mid: _Filled
    actor: Actor
    context: Context
    edata: msgspec.Raw
    object: Thing = Thing()
    tags: Sequence[str] = ()


class ValidEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that its schema accepts."""

    envelope: Envelope
    """``ets`` is normalised; ``edata`` is below."""
    ets_original: str
    edata: dict[str, Any]
    edata_text: bytes
    """As orjson writes it."""


def from_parsed(event: dict[str, Any], raw: bytes) -> ValidEvent:
    """Return an event that was parsed from ``raw`` and judged valid."""
    context = event["context"]
    actor = event["actor"]
    pdata = context.get("pdata", {})
    thing = event.get("object", {})
    envelope = Envelope(
        event["eid"],
        normalise_ets(event["ets"]),
        event["ver"],
        event["mid"],
        Actor(actor["id"], actor["type"]),
        Context(
            context["channel"],
            context["env"],
            Pdata(pdata.get("id", ""), pdata.get("pid", ""), pdata.get("ver", "")),
            context.get("sid", ""),
            context.get("did", ""),
            context.get("cdata"),
            context.get("rollup"),
        ),
        _NO_JSON,
        Thing(thing.get("id", ""), thing.get("type", ""), thing.get("ver", ""), thing.get("rollup")),
        event.get("tags", ()),
    )
    return ValidEvent(envelope, original_ets(event["ets"], raw), event["edata"], write_json(event["edata"]))


def write_json(value: Any) -> bytes:
    """Return JSON as orjson writes it, in a buffer of its size.

    orjson cuts its buffer of 1 KiB short, and as long as such bytes are kept, each has a hole behind it that the next
    one does not fit: with a thousand of them kept, each took 1.3 us instead of 0.4.
    """
    return bytes(memoryview(orjson.dumps(value)))
