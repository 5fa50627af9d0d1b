"""The state of a device: a last-writer-wins map by key, computed from its reports.

Each report has a place in the device's order: its effective time, then its digest. The effective time is the device's
own, at the most :data:`AHEAD_US` after the earliest receipt of the report, so that a clock far ahead freezes no key for
ever; without a time of its own it is the receipt. For each key the latest report that says something of it counts: a
value, null (the key is removed), or ``override`` without the key (removed too). This depends on the set of reports
alone, and not on how often, in which order or in which pieces they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from midstream.devices.report import Report, Value

AHEAD_US = 5 * 60 * 1_000_000
_FIRST_US = 0  # 1970: no device reported before, and no table has to hold it


class Place(NamedTuple):
    """Where a report stands in the order of its device."""

    at_us: int
    """The effective time."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """What a device's state says of a key."""

    value: Value
    place: Place
    received_at_us: int

    @property
    def at_us(self) -> int:
        """The effective time."""
        return self.place.at_us


def identity_of(report: Report) -> tuple[int | None, bytes | str]:
    """Return what tells reports of a device from one another: two receipts of the same one have the same.

    A report without a time of its own is another at each receipt.
    """
    if report.timestamp_us is None:
        return None, report.receipt_id
    return report.timestamp_us, report.digest


def place_of(report: Report) -> Place:
    """Return the place of a report of which this is the earliest receipt."""
    if report.timestamp_us is None:
        return Place(report.received_at_us, report.digest)
    return Place(max(min(report.timestamp_us, report.received_at_us + AHEAD_US), _FIRST_US), report.digest)


def earliest(reports: Iterable[Report]) -> list[Report]:
    """Return of each report the earliest receipt; of receipts at one moment, the one of the least id."""
    found: dict[tuple[int | None, bytes | str], Report] = {}
    for report in reports:
        identity = identity_of(report)
        known = found.get(identity)
        if known is None or (report.received_at_us, report.receipt_id) < (known.received_at_us, known.receipt_id):
            found[identity] = report
    return list(found.values())


def state_of(reports: Iterable[Report], at_us: int | None = None) -> Mapping[str, Entry]:
    """Return the state that receipts of reports add up to, in any order and however often.

    Args:
        reports: of one device.
        at_us: reports whose effective time is later do not count; None: all do.
    """
    state: dict[str, Entry] = {}
    placed = [(place_of(report), report) for report in earliest(reports)]
    # Reports at one place hold the same; the receipt decides which of their moments is shown.
    placed.sort(key=lambda one: (*one[0], one[1].received_at_us, one[1].receipt_id))
    for place, report in placed:
        if at_us is not None and place.at_us > at_us:
            break
        if report.override:
            state.clear()
        for key, value in report.values.items():
            if value is None:
                state.pop(key, None)
            else:
                state[key] = Entry(value, place, report.received_at_us)
    return state
