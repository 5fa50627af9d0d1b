"""What would become of each event of a body: for those who try before they send."""

from __future__ import annotations

from typing import Any

from midstream.envelope import read_envelope
from midstream.events.judge import Accepted, Judge


def judge_body(judge: Judge, body: bytes) -> list[dict[str, Any]]:
    """Return one entry for each element of ``events`` of an inflated body, in order.

    Keys: ``index``, ``mid`` and ``eid`` ("" if they cannot be read), ``valid``; ``code``, ``pointer`` (RFC 6901, "" for
    the event itself) and ``message``, null for a valid event; ``duplicate_of``, the index of the first valid event of
    this body with the same mid, null if it is the first itself or not valid.

    Raises:
        EnvelopeError: the body is no batch.
    """
    entries: list[dict[str, Any]] = []
    first_index: dict[str, int] = {}
    for index, element in enumerate(read_envelope(body).events):
        verdict = judge.judge(bytes(element))
        if isinstance(verdict, Accepted):
            mid = verdict.event["mid"]
            first = first_index.setdefault(mid, index)
            entries.append(
                _entry(index, mid, verdict.event["eid"]) | {"duplicate_of": None if first == index else first}
            )
        else:
            entries.append(
                _entry(index, verdict.mid, verdict.eid)
                | {
                    "valid": False,
                    "code": verdict.reason.value,
                    "pointer": verdict.pointer,
                    "message": verdict.message,
                }
            )
    return entries


def _entry(index: int, mid: str, eid: str) -> dict[str, Any]:
    return {
        "index": index,
        "mid": mid,
        "eid": eid,
        "valid": True,
        "code": None,
        "pointer": None,
        "message": None,
        "duplicate_of": None,
    }
