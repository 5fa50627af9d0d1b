"""What arrives broken: the kinds that production telemetry shows, in about the shares it shows them in.

Each kind spoils a good event, as the client that has the bug would have written it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from deploy.local.demo.events import Event
from midstream.codes import Reason

Spoil = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of broken event: what of (an eid, or any), how it is spoilt, how often, and the code it earns."""

    name: str
    eids: tuple[str, ...]
    spoil: Spoil
    weight: int
    code: Reason = Reason.SCHEMA_VIOLATION


def _without(*path: str) -> Spoil:
    def remove(event: dict[str, Any]) -> None:
        place = event
        for key in path[:-1]:
            place = place[key]
        place.pop(path[-1], None)

    return remove


def _with(value: Any, *path: str) -> Spoil:
    def put(event: dict[str, Any]) -> None:
        place = event
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = deepcopy(value)

    return put


KINDS: tuple[Kind, ...] = (
    Kind("INTERACT without edata.id", ("INTERACT",), _without("edata", "id"), 48),
    Kind("ERROR without err", ("ERROR",), _without("edata", "err"), 21),
    Kind("START with idisk as text", ("START",), _with("10.50", "edata", "dspec", "idisk"), 8),
    Kind("END without channel", ("END",), _without("context", "channel"), 7),
    Kind("cdata id an array", (), _with([{"type": "Class", "id": ["Class 7"]}], "context", "cdata"), 6),
    Kind("numeric uri", ("IMPRESSION",), _with(404, "edata", "uri"), 5),
    Kind("IMPRESSION without pageid", ("IMPRESSION",), _without("edata", "pageid"), 5),
    Kind("END without type", ("END",), _without("edata", "type"), 4),
    Kind("visits objid an object", ("IMPRESSION",), _with([{"objid": {}, "objtype": "Content"}], "edata", "visits"), 3),
    Kind("object.rollup an array", ("INTERACT", "ASSESS"), _with([], "object", "rollup"), 3),
    Kind("edata key of another eid, null", ("IMPRESSION",), _with(None, "edata", "rating"), 3),
    Kind("no mid", (), _without("mid"), 4, Reason.MISSING_MID),
    Kind("eid in lower case", ("IMPRESSION",), _with("impression", "eid"), 3, Reason.UNKNOWN_EID),
    Kind("telemetry 2.1", (), _with("2.1", "ver"), 2, Reason.UNKNOWN_VERSION),
    Kind("NaN", ("END",), _with(float("nan"), "edata", "duration"), 2, Reason.INVALID_JSON),
)


def choose_broken(random: Random, events: Sequence[dict[str, Any]], number: int) -> dict[str, Kind]:
    """Choose ``number`` of the events to be broken, each kind at least once if the number allows; kind by mid."""
    kinds = [*KINDS, *random.choices(KINDS, [kind.weight for kind in KINDS], k=max(0, number - len(KINDS)))][:number]
    chosen: dict[str, Kind] = {}
    for kind in kinds:
        fitting = [event["mid"] for event in events if not kind.eids or event["eid"] in kind.eids]
        left = [mid for mid in fitting if mid not in chosen]
        if left:
            chosen[random.choice(left)] = kind
    return chosen


def spoil(kind: Kind, event: dict[str, Any]) -> Event:
    """Return an event broken in one way."""
    broken = deepcopy(event)
    kind.spoil(broken)
    text = orjson.dumps(broken)
    if kind.code is Reason.INVALID_JSON:
        text = text.replace(b'"duration":null', b'"duration":NaN')  # orjson writes null, a careless client NaN
    return Event(broken.get("mid", ""), broken["eid"], text, kind.code)
