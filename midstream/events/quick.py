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
from midstream.events.typed import Envelope, ValidEvent

_ENVELOPE_DEPTH = 4  # event, context, cdata, its element
_COLON = ord(":")
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
        found: list[ValidEvent | None] = [None] * len(raws)
        decode = self._decode
        max_bytes = self._max_bytes
        places: list[int] = []
        envelopes: list[Envelope] = []
        for place, raw in enumerate(raws):
            if len(raw) <= max_bytes:
                try:
                    envelopes.append(decode(raw))
                except _NOT_READ:
                    continue
                places.append(place)
        if len(places) < len(raws):
            raws = [raws[place] for place in places]
        sound = self._sound(raws, envelopes)
        if len(sound) < len(envelopes):
            places = [places[at] for at in sound]
            envelopes = [envelopes[at] for at in sound]
        for place, event in zip(places, self._with_edata(envelopes), strict=True):
            found[place] = event
        return found

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
        max_depth = self._max_edata_depth
        # Each level takes two bytes, and a bracket that opens it.
        if all(text.count(b"{") + text.count(b"[") <= max_depth for text in texts if len(text) > 2 * max_depth):
            read = _parse(texts)
            if read is not None:
                is_valid = self._is_valid
                return [
                    ValidEvent(envelope, str(envelope.ets), edata, text)
                    if envelope.eid in is_valid and is_valid[envelope.eid](edata)
                    else None
                    for envelope, text, edata in zip(envelopes, *read, strict=True)
                ]
        # There is doubt about one of them, whichever it is.
        middle = len(envelopes) // 2
        if not middle:
            return [None]
        return self._with_edata(envelopes[:middle]) + self._with_edata(envelopes[middle:])


def _parse(texts: list[bytes]) -> tuple[list[bytes], list[dict[str, Any]]] | None:
    """Return JSON texts as orjson writes them, and their values; None if one is no JSON, or may have a doubled key.

    All are read and written in one call. If the same text comes out, each was as orjson writes it, and no key in it is
    doubled; otherwise colons tell, as in the envelope.
    """
    together = b"[" + b",".join(texts) + b"]"
    try:
        values = orjson.loads(together)
    except orjson.JSONDecodeError:
        return None
    written = orjson.dumps(values)
    if written != together:
        if _count_colons(written) != _count_colons(together):
            return None
        texts = [orjson.dumps(value) for value in values]
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
