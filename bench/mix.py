"""The mix of events that is measured: what apps of a learning platform send, some 750 bytes each.

INTERACT 45%, IMPRESSION 25%, START and END 10%, LOG 10%, ASSESS 5%, ERROR 3%, SEARCH 2%; 2% resent, 1% invalid;
10,000 users and devices.
"""

from __future__ import annotations

import gzip
import random
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

_SHARES = {"INTERACT": 45, "IMPRESSION": 25, "START": 5, "END": 5, "LOG": 10, "ASSESS": 5, "ERROR": 3, "SEARCH": 2}
_RESENT = 0.02
_INVALID = 0.01
PEOPLE = 10_000
"""Users, and devices."""
_OBJECTS = 500
_HELD = 2_000
_GZIP_LEVEL = 6  # what clients use unless they are told otherwise
_MID = re.compile(rb'("mid":"[A-Z]+:)([0-9a-f]{8})')


def _extra(rng: random.Random) -> dict[str, Any]:
    return {"pos": [{"x": rng.random(), "y": rng.random()}], "values": ["abc", "def", {"k": "v" * 60}]}


_EDATA: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "INTERACT": lambda rng: {
        "type": "TOUCH",
        "id": f"button-{rng.randrange(50)}",
        "pageid": "player",
        "subtype": "next",
        "extra": _extra(rng),
    },
    "IMPRESSION": lambda rng: {
        "type": "view",
        "pageid": "home",
        "uri": f"/course/{rng.randrange(500)}/page",
        "subtype": "scroll",
        "visits": [{"objid": f"do_{n}", "objtype": "Content", "index": n, "section": "s"} for n in range(2)],
    },
    "START": lambda rng: {
        "type": "app",
        "mode": "play",
        "pageid": "home",
        "dspec": {"os": "Android 12", "make": "Maker 5", "mem": rng.randrange(8_000), "cap": ["GPS"]},
    },
    "END": lambda rng: {"type": "app", "mode": "play", "pageid": "home", "duration": rng.random() * 900},
    "LOG": lambda rng: {"type": "api_call", "level": "INFO", "message": "m" * 100, "params": [_extra(rng)]},
    "ASSESS": lambda rng: {
        "item": {"id": f"q{rng.randrange(900)}", "maxscore": 1, "exlength": 0, "desc": "", "title": "t"},
        "pass": "Yes",
        "score": 1,
        "resvalues": [{"1": "a"}],
        "duration": rng.randrange(90),
        "index": 1,
    },
    "ERROR": lambda rng: {"err": f"E{rng.randrange(90)}", "errtype": "SYSTEM", "stacktrace": "s" * 200, "pageid": "p"},
    "SEARCH": lambda rng: {
        "type": "content",
        "query": f"maths {rng.randrange(99)}",
        "size": 3,
        "topn": [{"id": "do_1"}],
        "filters": {"subject": ["maths"]},
        "sort": {"lastUpdatedOn": "desc"},
    },
}


def user_id(number: int) -> str:
    """Return the id of a user; the mix has the first :data:`PEOPLE`."""
    return f"user-{number:05d}-9f8e7d6c5b4a"


def _device_id(number: int) -> str:
    return f"device-{number:05d}-1a2b3c4d5e6f7a8b9c0d"


def _object_id(number: int) -> str:
    return f"do_{number:06d}"


def _event(rng: random.Random, eid: str, ets_ms: int) -> dict[str, Any]:
    person = rng.randrange(PEOPLE)
    return {
        "eid": eid,
        "ets": ets_ms,
        "ver": "3.0",
        "mid": f"{eid}:{uuid.UUID(int=rng.getrandbits(128)).hex}",
        "actor": {"id": user_id(person), "type": "User"},
        "context": {
            "channel": f"channel-{person % 5}",
            "env": "home",
            "pdata": {"id": "prod.app", "pid": "mobile", "ver": "4.10.2"},
            "sid": uuid.UUID(int=rng.getrandbits(128)).hex,
            "did": _device_id(person),
            "cdata": [{"type": "Session", "id": "s1"}],
            "rollup": {"l1": "ORG_001"},
        },
        "object": {"id": _object_id(rng.randrange(_OBJECTS)), "type": "Content", "ver": "1", "rollup": {"l1": "do_1"}},
        "tags": ["a1b2"],
        "edata": _EDATA[eid](rng),
    }


@dataclass(frozen=True, slots=True)
class Batch:
    """One body, and what must become of it."""

    body: bytes
    events: int
    fresh: int
    """Events of a mid that no batch before held."""
    resent: int
    invalid: int

    def compressed(self) -> Batch:
        """Return the same batch with its body as gzip."""
        return replace(self, body=gzip.compress(self.body, _GZIP_LEVEL, mtime=0))

    def renewed(self, number: int) -> Batch:
        """Return the batch (plain) with other mids: the same for the same ``number``, so that what is resent among
        batches stays so among the renewed ones."""

        def renew(found: re.Match[bytes]) -> bytes:
            return b"%b%08x" % (found[1], int(found[2], 16) ^ number)

        return replace(self, body=_MID.sub(renew, self.body))


def batches(seed: int, events: int, batch_events: int, ets_ms: int, *, stored: Sequence[bytes] = ()) -> Iterator[Batch]:
    """Yield batches of ``batch_events`` until there are ``events`` in all. The same arguments give the same bytes.

    What is resent are events of batches before, or of ``stored`` where there are some.
    """
    rng = random.Random(seed)
    kinds, weights = list(_SHARES), list(_SHARES.values())
    held: list[bytes] = []
    for number in range(events // batch_events):
        texts: list[bytes] = []
        fresh: list[bytes] = []
        resent = invalid = 0
        for eid in rng.choices(kinds, weights, k=batch_events):
            draw = rng.random()
            if draw < _RESENT and (stored or held):
                texts.append(rng.choice(stored or held))
                resent += 1
                continue
            event = _event(rng, eid, ets_ms)
            if draw > 1 - _INVALID:
                del event["context"]["channel"]
                invalid += 1
            text = orjson.dumps(event)
            texts.append(text)
            if draw <= 1 - _INVALID:
                fresh.append(text)
        held = (held + fresh)[-_HELD:]
        head = orjson.dumps({"id": "api.telemetry", "ver": "3.0", "params": {"msgid": f"{seed}-{number}"}})
        yield Batch(head[:-1] + b',"events":[' + b",".join(texts) + b"]}", batch_events, len(fresh), resent, invalid)


def dimension_rows() -> dict[str, list[bytes]]:
    """Return a row for each user, device and object of the mix, as lines of JSON by type of dimension."""
    return {
        "user": [_row(user_id(n), state=f"State {n % 30}", district=f"District {n % 700}") for n in range(PEOPLE)],
        "device": [_row(_device_id(n), os=f"Android {n % 9}", make=f"Maker {n % 40}") for n in range(PEOPLE)],
        "content": [_row(_object_id(n), name=f"Lesson {n}", subject=f"Subject {n % 12}") for n in range(_OBJECTS)],
    }


def _row(id_: str, **attributes: str) -> bytes:
    return orjson.dumps({"id": id_, "attributes": attributes})
