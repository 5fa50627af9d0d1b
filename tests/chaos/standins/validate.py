"""``validate``, going wrong on purpose. ``CHAOS_DOES`` may name:

- ``die``: when the trigger is set, end this process (SIGKILL) after its blocks are durable and before their records
  are acknowledged, so that Kafka never hears of it;
- ``drop``: leave one event in ``CHAOS_DROP_ONE_IN`` out of its block, and say nothing of it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from processors.validate.agent import Validator, make_validate_app
from processors.validate.seal import Sealed, ValidBlock
from processors.worker import run_worker
from tests.chaos.standins import signs

_NAMES = ["mid", "batch_id", "event_index"]

_run_round = Validator.run_round
_add = ValidBlock.add


class _Event:
    """A record whose acknowledgement may be the end."""

    def __init__(self, event: Any) -> None:
        self._event = event
        self.message = event.message

    def ack(self) -> None:
        if signs.take_trigger():
            signs.leave_note()
            signs.signal_self(signal.SIGKILL)
        self._event.ack()


async def _die(self: Validator, events: Sequence[Any]) -> None:
    await _run_round(self, [_Event(event) for event in events])


def _drop(self: ValidBlock, rows: pa.RecordBatch) -> Iterator[Sealed]:
    dropped = [signs.is_dropped(mid_hash) for mid_hash in rows.column("mid_hash").to_pylist()]
    for row in rows.select(_NAMES).filter(pa.array(dropped)).to_pylist():
        signs.drop(*(row[name] for name in _NAMES))
    return _add(self, rows.filter(pa.array([not is_dropped for is_dropped in dropped])))


if __name__ == "__main__":
    if "die" in signs.does():
        Validator.run_round = _die  # type: ignore[method-assign]
    if "drop" in signs.does():
        ValidBlock.add = _drop  # type: ignore[method-assign]
    run_worker("validate", make_validate_app, lambda settings: settings.validate_metrics_port, needs_clickhouse=False)
