from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from midstream.registry.fleet.devices import Devices, Registration
from midstream.registry.fleet.errors import NotThereError
from midstream.registry.fleet.models import NewModel
from midstream.registry.fleet.told import MAX_DUMPS, MAX_EVENTS, DumpInfo, Told


@pytest.fixture
def told(engine: Engine) -> Told:
    return Told(engine)


@pytest.fixture
def other(devices: Devices, model: NewModel) -> str:
    return devices.register(Registration("SN-2", "1.0.0", model.hardware_key, cloud_id="c")).id


def dump(size: int = 10) -> DumpInfo:
    return DumpInfo(str(uuid4()), "0" * 64, size, datetime.now(UTC))


def test_the_newest_events_of_each_device_are_kept(told: Told, device: str, other: str) -> None:
    told.add_event(other, {"other": True})
    for number in range(MAX_EVENTS + 3):
        told.add_event(device, {"n": number, "nested": [{"\u0000": "😀"}]})
    events = told.events(device)
    assert [event.content["n"] for event in events] == list(range(MAX_EVENTS + 2, 2, -1))
    assert events[0].content["nested"] == [{"\u0000": "😀"}]
    assert len(told.events(other)) == 1


def test_the_newest_dumps_of_each_device_are_kept(told: Told, device: str, other: str) -> None:
    kept = dump()
    assert told.add_dump(other, kept, 1_000) == []
    dumps = [dump() for _ in range(MAX_DUMPS + 1)]
    gone = [told.add_dump(device, one, 1_000) for one in dumps]
    assert gone == [[]] * MAX_DUMPS + [[dumps[0].id]]
    assert [one.id for one in told.dumps(device)] == [one.id for one in dumps[:0:-1]]
    assert told.dumps(other) == [kept]
    assert told.dump(other, kept.id) == kept
    for device_id, dump_id in ((device, kept.id), (device, dumps[0].id), ("nobody", kept.id)):
        with pytest.raises(NotThereError):
            told.dump(device_id, dump_id)


def test_all_dumps_together_have_a_bound(told: Told, device: str, other: str) -> None:
    first, second, third = dump(400), dump(400), dump(700)
    assert told.add_dump(other, first, 1_000) == []
    assert told.add_dump(device, second, 1_000) == []
    assert told.add_dump(device, third, 1_000) == [first.id, second.id]
    assert [one.id for one in told.dumps(device)] == [third.id]
