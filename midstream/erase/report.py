"""What an erasure tells: what was changed, and what only time removes. It names the person by the pseudonym alone."""

from __future__ import annotations

from typing import Any, NamedTuple

from midstream import topics

_DAY_MS = 86_400_000
_OLD_PARTS_MINUTES = 8


class Spooled(NamedTuple):
    """Batches that collectors hold on their disks from before the erasure."""

    batches: int
    bytes: int


def what_time_removes(spooled: Spooled, naming: int) -> list[dict[str, Any]]:
    """Return where the person may still be found, until when, and what to do about it.

    Args:
        spooled: what was not sent on within the time that the erasure waited.
        naming: other objects whose attributes name the person.
    """
    left: list[dict[str, Any]] = [
        {
            "where": f"Kafka topic {topic.name}",
            "until": f"{int(topic.config['retention.ms']) // _DAY_MS} days after it was written",
        }
        for topic in topics.ALL
        if "retention.ms" in topic.config
    ]
    left += [
        {"where": f"Kafka topic {topics.DIMENSIONS.name}", "until": "the topic is compacted next"},
        {"where": "ClickHouse's former parts", "until": f"{_OLD_PARTS_MINUTES} minutes after the change"},
        {"where": "backups of ClickHouse, Kafka and the registry", "until": "they are deleted"},
        {"where": "datasets that partners downloaded", "until": "partners delete them"},
    ]
    if spooled.batches:
        left.append(
            {
                "where": f"spools of collectors: {spooled.batches} batches, {spooled.bytes} bytes",
                "until": "Kafka takes them; they are stored under the pseudonym",
            }
        )
    if naming:
        left.append({"where": f"attributes of {naming} other objects", "until": "their source changes them"})
    return left
