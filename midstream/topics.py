"""Kafka topics: names, who writes them, how they are kept. The one place that says so."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""Largest value a topic takes, by the collector's limit of an inflated body."""

OVERHEAD_BYTES = 64 * 1024
"""What a record's key, headers and the record batch's own frame may add."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and the settings it is created with."""

    name: str
    config: dict[str, str] = field(default_factory=dict)

    def broker_config(self) -> dict[str, str]:
        """Settings for topic creation.

        LogAppendTime, because Kafka refuses records whose create time is hours ahead, and a client's or
        a host's clock must not make it refuse a batch.
        """
        return {
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(MAX_MESSAGE_BYTES + OVERHEAD_BYTES),
            **self.config,
        }


_SEVEN_DAYS_MS = str(7 * 24 * 3600 * 1000)

RAW = Topic("telemetry.raw", {"retention.ms": _SEVEN_DAYS_MS})
VALID = Topic("telemetry.valid", {"retention.ms": _SEVEN_DAYS_MS})
# A dead letter holds the largest record of telemetry.raw whole, and says more about it.
DEAD = Topic(
    "telemetry.dead",
    {"retention.ms": _SEVEN_DAYS_MS, "max.message.bytes": str(MAX_MESSAGE_BYTES + 2 * OVERHEAD_BYTES)},
)
DIMENSIONS = Topic("dimensions", {"cleanup.policy": "compact"})
# A mark a second and slot, and whoever starts reads them all. Kafka never compacts the segment that it appends to, and
# closed ones only when enough has come since: so segments are closed soon, and anything counts as enough.
COLLECTORS = Topic(
    "collectors",
    {
        "cleanup.policy": "compact",
        "segment.ms": str(10 * 60 * 1000),
        "segment.bytes": str(16 * 1024 * 1024),
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": str(3600 * 1000),
    },
)
# A few records, each under the key that it always has; a process that meets one it does not know reads them all.
SCHEMAS = Topic("schemas", {"cleanup.policy": "compact", "segment.bytes": str(1024 * 1024)})

DEVICE = Topic("device.telemetry", {"retention.ms": _SEVEN_DAYS_MS})
ASSIGNMENT = Topic("assignment.telemetry", {"retention.ms": _SEVEN_DAYS_MS})

ALL: tuple[Topic, ...] = (RAW, VALID, DEAD, DIMENSIONS, COLLECTORS, DEVICE, ASSIGNMENT, SCHEMAS)

GROUP_VALIDATE = "midstream-validate"
GROUP_STORE = "midstream-store"
GROUP_RECEIPTS = "midstream-receipts"
GROUP_DIMENSIONS = "midstream-dimensions"
GROUP_DEVICES = "midstream-devices"

RECEIPT_HEADER = "receipt"
"""Header of a ``telemetry.raw`` record: a :class:`midstream.receipt.Receipt` as JSON."""
