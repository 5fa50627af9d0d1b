"""Reason codes of a dead letter: the one list, each with its meaning and what a sender should do.

The table in ``docs/events.md`` is checked against this list by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why an event (or a whole batch body) was refused."""

    INVALID_JSON = "INVALID_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    MISSING_MID = "MISSING_MID"
    UNKNOWN_EID = "UNKNOWN_EID"
    UNKNOWN_VERSION = "UNKNOWN_VERSION"
    SCHEMA_VIOLATION = "SCHEMA_VIOLATION"
    EVENT_TOO_LARGE = "EVENT_TOO_LARGE"
    TOO_DEEP = "TOO_DEEP"
    INVALID_UTF8 = "INVALID_UTF8"
    BATCH_UNREADABLE = "BATCH_UNREADABLE"
    POISON = "POISON"


@dataclass(frozen=True, slots=True)
class ReasonDoc:
    """The documentation of one reason code."""

    meaning: str
    example: str
    sender: str


REASONS: dict[Reason, ReasonDoc] = {
    Reason.INVALID_JSON: ReasonDoc(
        "The event's bytes are not one JSON value, or an object in it names a key twice.",
        '{"eid":"LOG","mid":NaN}',
        "Serialise with a JSON library; NaN and Infinity are not JSON, and a key stands once.",
    ),
    Reason.NOT_AN_OBJECT: ReasonDoc(
        "The element of `events` is not a JSON object.", '"START"', "Send each event as an object."
    ),
    Reason.MISSING_MID: ReasonDoc(
        "`mid` is absent, null, empty or not a string.",
        '{"eid":"LOG","mid":""}',
        "Give each event an id of its own, and keep it when the event is sent again.",
    ),
    Reason.UNKNOWN_EID: ReasonDoc(
        "No schema exists for this `eid` (upper case, as the specification writes it).",
        '{"eid":"start"}',
        "Correct the eid, or ask the operator to add a schema file for it.",
    ),
    Reason.UNKNOWN_VERSION: ReasonDoc(
        "`ver` is neither 3.0 nor 3.1.", '{"ver":"2.0"}', "Send telemetry of version 3.0 or 3.1."
    ),
    Reason.SCHEMA_VIOLATION: ReasonDoc(
        "The event breaks its JSON Schema; the pointer names the place.",
        '{"eid":"INTERACT","edata":{"type":"TOUCH"}}',
        "Correct the field that the pointer names.",
    ),
    Reason.EVENT_TOO_LARGE: ReasonDoc(
        "The event's text is longer than the limit (512 KiB by default).",
        "an event with a 2 MB stack trace",
        "Shorten the event: keep large payloads elsewhere and send a reference.",
    ),
    Reason.TOO_DEEP: ReasonDoc(
        "Objects and arrays are nested deeper than the limit (64 by default).",
        '{"edata":{"extra":{"a":{"a":{"a": ...}}}}}',
        "Flatten the event.",
    ),
    Reason.INVALID_UTF8: ReasonDoc(
        "The event's text is not UTF-8, or escapes a lone surrogate.",
        r'{"mid":"\ud800"}',
        "Send UTF-8, and write surrogates in pairs.",
    ),
    Reason.BATCH_UNREADABLE: ReasonDoc(
        "A record of `telemetry.raw` that did not come through the collector is no readable batch.",
        "a truncated gzip body written to the topic by another tool",
        "Post batches to the collector, which refuses such a body at once.",
    ),
    Reason.POISON: ReasonDoc(
        "A worker failed or died at the event (or at the whole body) time after time, or the database refuses it.",
        "an event that the database refuses although its schema accepts it",
        "Nothing: the operator finds it in `rejects`, whole, and can replay it.",
    ),
}
