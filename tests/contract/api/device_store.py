"""What is stored of devices' reports, in memory: the reference of the state says what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from midstream.clickhouse.client import ClickHouseError
from midstream.devices.report import STATUS_KEY, Report, Value
from midstream.devices.state import earliest, place_of, state_of


@dataclass(frozen=True)
class MemoryEntry:
    value: Value
    at_us: int
    received_at_us: int


class MemoryStore:
    """Keeps reports as ClickHouse would; ``away`` lets it answer no more."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.away = False

    def state(self, device_id: str, at_us: int | None = None) -> Mapping[str, MemoryEntry]:
        self._check()
        found = state_of(self._of(device_id), at_us)
        return {key: MemoryEntry(one.value, one.place.at_us, one.received_at_us) for key, one in found.items()}

    def states(self, device_ids: Sequence[str]) -> Mapping[str, Mapping[str, MemoryEntry]]:
        self._check()
        return {id_: state for id_ in device_ids if (state := self.state(id_))}

    def stored_since(self, since_ms: int) -> Mapping[str, int]:
        """What is received is stored at the same moment."""
        self._check()
        found: dict[str, int] = {}
        for one in self.reports:
            if (stored_ms := one.received_at_us // 1_000) > since_ms:
                found[one.device_id] = max(found.get(one.device_id, 0), stored_ms)
        return found

    def statuses(self, device_ids: Sequence[str]) -> Mapping[str, MemoryEntry]:
        self._check()
        states = {id_: self.state(id_) for id_ in device_ids}
        return {id_: state[STATUS_KEY] for id_, state in states.items() if STATUS_KEY in state}

    def history(self, device_id: str, key: str, from_us: int, to_us: int) -> Sequence[tuple[int, Value]]:
        self._check()
        reports = sorted(earliest(self._of(device_id)), key=place_of)
        found = [(place_of(one).at_us, one.values.get(key)) for one in reports]
        return [(at_us, value) for at_us, value in found if value is not None and from_us <= at_us < to_us]

    def _of(self, device_id: str) -> list[Report]:
        return [one for one in self.reports if one.device_id == device_id]

    def _check(self) -> None:
        if self.away:
            raise ClickHouseError("no answer from ClickHouse: secret-host", None)
