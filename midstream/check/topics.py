"""Whether the topics are as they must be. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from midstream.check.result import Result, fail, ok, warn
from midstream.topics import Topic

_MIGRATE = "midstream migrate"


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as Kafka describes it.

    Attributes:
        partitions: their number.
        replicas: of the partition that has fewest.
        without_leader: partitions that nobody can read or write now.
        behind: partitions of which a replica is behind or away.
        config: its settings in force, by name.
    """

    partitions: int
    replicas: int
    without_leader: int
    behind: int
    config: Mapping[str, str]


def judge_topics(
    wanted: Sequence[Topic], found: Mapping[str, FoundTopic], brokers: int, replication_factor: int
) -> list[Result]:
    """Judge the topics: results of what is wrong with each, and one that they are there.

    Args:
        wanted: the topics of ours.
        found: those that are there, by name.
        brokers: how many Kafka has.
        replication_factor: the setting.
    """
    missing = [topic.name for topic in wanted if topic.name not in found]
    results = []
    if missing:
        results.append(fail("kafka.topics", f"missing: {', '.join(missing)}", _MIGRATE))
    for topic in wanted:
        if topic.name in found:
            one = found[topic.name]
            results += _config(topic, one) + _replicas(topic.name, one, brokers, replication_factor)
    if not results:
        numbers = {f"{one.partitions}" for one in (found[topic.name] for topic in wanted)}
        shown = f"{len(wanted)} topics of {' or '.join(sorted(numbers, key=int))} partitions"
        results.append(ok("kafka.topics", shown))
    return results


def _config(topic: Topic, found: FoundTopic) -> list[Result]:
    results = []
    for key, value in topic.broker_config().items():
        present = found.config.get(key, "")
        if present == value or (key in _AT_LEAST and _is_at_least(present, value)):
            continue
        message = f"{topic.name}: {key} is {present or 'not set'}, must be {value}"
        judge = fail if key in _ESSENTIAL else warn
        results.append(judge("kafka.topics", message, _MIGRATE))
    return results


_ESSENTIAL = ("message.timestamp.type", "max.message.bytes", "cleanup.policy")
"""Wrong, records are refused, or lost."""

_AT_LEAST = ("retention.ms", "max.message.bytes")


def _is_at_least(present: str, wanted: str) -> bool:
    try:
        return int(present) >= int(wanted) or int(present) == -1  # -1: for ever
    except ValueError:
        return False


def _replicas(name: str, found: FoundTopic, brokers: int, replication_factor: int) -> list[Result]:
    results = []
    least_in_sync = int(found.config.get("min.insync.replicas", "1"))
    if found.without_leader:
        change = "start the brokers that are away; their logs say why they are"
        results.append(fail("kafka.topics", f"{name}: {found.without_leader} partitions have no leader", change))
    elif found.behind:
        change = "start the brokers that are away, or wait until they have caught up"
        results.append(warn("kafka.topics", f"{name}: replicas of {found.behind} partitions are behind", change))
    if found.replicas < min(replication_factor, brokers) or (brokers >= 3 > found.replicas):
        wanted = max(replication_factor, 3 if brokers >= 3 else 1)
        change = f"kafka-reassign-partitions.sh: give {name} {wanted} replicas"
        results.append(warn("kafka.topics", f"{name}: {found.replicas} replicas on {brokers} brokers", change))
    configure = f"kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config"
    if least_in_sync > found.replicas:
        message = f"{name}: min.insync.replicas is {least_in_sync} with {found.replicas} replicas: nobody can write"
        change = f"{configure} min.insync.replicas={max(1, found.replicas - 1)}"
        results.append(fail("kafka.topics", message, change))
    elif found.replicas >= 3 and least_in_sync < 2:
        message = f"{name}: min.insync.replicas is 1: what one broker alone has acknowledged may be lost with it"
        results.append(warn("kafka.topics", message, f"{configure} min.insync.replicas=2"))
    if found.config.get("unclean.leader.election.enable") == "true":
        message = f"{name}: unclean.leader.election.enable is true: acknowledged records may be lost"
        results.append(warn("kafka.topics", message, f"{configure} unclean.leader.election.enable=false"))
    return results
