"""Whether the pipeline says of simulated devices what they said: their states, as ClickHouse has them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from midstream.devices.stored import Rows, read_states
from midstream.simulate.device import SimulatedDevice

_POLL_S = 0.5


def wrong_states(devices: Sequence[SimulatedDevice], rows: Rows, within_s: float) -> list[str]:
    """Wait until each device's state is what its reports add up to; return the ids of those whose state is not.

    Args:
        devices: that sent nothing since.
        rows: runs a query.
        within_s: how long what is on its way may take.

    Raises:
        ClickHouseError: it cannot be read.
    """
    expected: dict[str, Mapping[str, object]] = {one.identity.id: one.expected.values() for one in devices}
    end = time.monotonic() + within_s
    while True:
        states = read_states(rows, expected)
        for device_id in list(expected):
            found = {key: entry.value for key, entry in states.get(device_id, {}).items()}
            if found == expected[device_id]:
                del expected[device_id]
        if not expected or time.monotonic() > end:
            return list(expected)
        time.sleep(_POLL_S)
