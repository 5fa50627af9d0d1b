"""The quick way to judge: many events at a time, by types of the envelope. It accepts, or says nothing.

What it says nothing of goes to the judge, one event at a time. Of what it accepts it has seen that

- the text is UTF-8 within the size and the depth;
- the envelope is as the types of :mod:`midstream.events.typed` have it, with no key unknown or doubled;
- ``edata`` is JSON to orjson, with no key doubled, and valid by the fast validator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import orjson

from midstream.events.schemas import Schemas
from midstream.events.typed import Envelope, ValidEvent, write_json

_ENVELOPE_DEPTH = 4  # event, context, cdata, its element
_COLON = ord(":")
_BRACE = ord("{")
_BRACE_BIT = ord("{") ^ ord("[")  # the only one in which they differ
_NOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class QuickReader:
    """Reads events of the schemas that say nothing of an event beyond the envelope and ``edata``.

    Args:
        schemas: see :func:`midstream.events.schemas.load_schemas`.
        max_event_bytes: size of the largest event.
        max_depth: deepest nesting of objects and arrays, the event itself being the first level; at most 250.
    """

    def __init__(self, schemas: Schemas, max_event_bytes: int, max_depth: int) -> None:
        self._is_valid = {
            eid: schema.fast_edata.is_valid for eid, schema in schemas.items() if schema.fast_edata is not None
        }
        self._max_edata_depth = max_depth - 1
        self._max_bytes = max_event_bytes if max_depth >= _ENVELOPE_DEPTH else -1
        self._decode = msgspec.json.Decoder(Envelope).decode
        self._encode = msgspec.json.Encoder().encode

    def read(self, raws: Sequence[bytes]) -> list[ValidEvent | None]:
        """Return each event that is certain to be valid; None is no refusal. Never raises for what stands in them."""
        count = len(raws)
        if max(map(len, raws), default=0) > self._max_bytes:
            raws = [raw if len(raw) <= self._max_bytes else b"" for raw in raws]
        places, envelopes = self._decode_all(raws)
        if len(places) < count:
            raws = [raws[place] for place in places]
        sound = self._sound(raws, envelopes)
        if len(sound) < len(envelopes):
            places = [places[at] for at in sound]
            envelopes = [envelopes[at] for at in sound]
        events = self._with_edata(envelopes)
        if len(events) == count:
            return events
        found: list[ValidEvent | None] = [None] * count
        for place, event in zip(places, events, strict=True):
            found[place] = event
        return found

    def _decode_all(self, raws: Sequence[bytes]) -> tuple[Sequence[int], list[Envelope]]:
        """Return the places of those that can be decoded, and their envelopes."""
        decode = self._decode
        envelopes: list[Envelope] = []
        missing: set[int] = set()
        for place, raw in enumerate(raws):
            try:
                envelopes.append(decode(raw))
            except _NOT_READ:
                missing.add(place)
        if missing:
            return [place for place in range(len(raws)) if place not in missing], envelopes
        return range(len(raws)), envelopes

    def _sound(self, raws: Sequence[bytes], envelopes: list[Envelope]) -> Sequence[int]:
        """Return the places of those whose text is sound as far as the envelope reaches.

        A colon of the text ends a key or stands in a string. A key that is unknown or doubled was dropped with its
        colon, and encoding adds none but those that were escaped. So as many colons as before prove that no key was
        dropped; and since none of the events can have more than before, one cannot make up for another.
        """
        if not envelopes:
            return ()
        together = b"\n".join(raws)
        if _is_plain(together) and _count_colons(together) == _count_colons(self._encode(envelopes)):
            return range(len(envelopes))
        return [
            at
            for at, (raw, envelope) in enumerate(zip(raws, envelopes, strict=True))
            if _is_plain(raw) and _count_colons(raw) == _count_colons(self._encode(envelope))
        ]

    def _with_edata(self, envelopes: list[Envelope]) -> list[ValidEvent | None]:
        """Return the events whose edata is valid too."""
        if not envelopes:
            return []
        texts = [bytes(envelope.edata) for envelope in envelopes]
        together = b"[" + b",".join(texts) + b"]"
        if self._are_shallow(texts, together):
            read = _parse(texts, together)
            if read is not None:
                is_valid = self._is_valid
                return [
                    ValidEvent(envelope, str(envelope.ets), edata, text)
                    if is_valid.get(envelope.eid, _never)(edata)
                    else None
                    for envelope, text, edata in zip(envelopes, *read, strict=True)
                ]
        # There is doubt about one of them, whichever it is.
        middle = len(envelopes) // 2
        if not middle:
            return [None]
        return self._with_edata(envelopes[:middle]) + self._with_edata(envelopes[middle:])

    def _are_shallow(self, texts: list[bytes], together: bytes) -> bool:
        """Tell whether it is certain that none of these texts, joined in ``together``, is nested too deep.

        Each level of one has a bracket that opens it. So where even the nearest brackets with so many between them lie
        farther apart than the longest text reaches, none has too many.
        """
        max_depth = self._max_edata_depth
        opening = np.flatnonzero((np.frombuffer(together, np.uint8) | _BRACE_BIT) == _BRACE)
        if len(opening) <= max_depth or (opening[max_depth:] - opening[:-max_depth]).min() >= max(map(len, texts)):
            return True
        return all(text.count(b"{") + text.count(b"[") <= max_depth for text in texts)


def _never(edata: dict[str, Any]) -> bool:
    """Accept no edata of an eid that is unknown here."""
    return False


def _parse(texts: list[bytes], together: bytes) -> tuple[list[bytes], list[dict[str, Any]]] | None:
    """Return JSON texts, in ``together`` as one array, as orjson writes them, and their values.

    All are read and written in one call. If the same text comes out, each was as orjson writes it, and no key in it is
    doubled; otherwise colons tell, as in the envelope. Returns None if one is no JSON, or may have a doubled key.
    """
    try:
        values = orjson.loads(together)
    except orjson.JSONDecodeError:
        return None
    written = orjson.dumps(values)
    if written != together:
        if _count_colons(written) != _count_colons(together):
            return None
        texts = [write_json(value) for value in values]
    return texts, values


def _is_plain(text: bytes) -> bool:
    """Tell whether a text is UTF-8, and whether no colon in it is escaped."""
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return b"\\" not in text or (b"\\u003a" not in text and b"\\u003A" not in text)


def _count_colons(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _COLON))
