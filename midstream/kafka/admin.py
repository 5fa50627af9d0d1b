"""The topics of :mod:`midstream.topics`: created where missing, their settings put right, nothing else touched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorForGroupError,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from midstream import topics
from midstream.kafka.access import KafkaRefusedError, require_access
from midstream.kafka.connection import connection
from midstream.logs import get_logger
from midstream.settings import Settings

log = get_logger(__name__)

_RETRY_S = 0.1
_DYNAMIC_TOPIC_CONFIG = 1  # config_source of Kafka's DescribeConfigs: set on the topic itself


COORDINATOR_AWAY = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""A group's coordinator cannot tell now: Kafka starts, or another broker takes it on. To be asked again."""


class TopicsError(Exception):
    """The topics are not as they must be; the message says why."""


async def ensure_topics(settings: Settings, *, timeout_s: float = 30.0) -> None:
    """Create the topics that are missing and put right settings that differ from :mod:`midstream.topics`.

    The number of partitions of a topic that is there is never changed: keys would move to other partitions.
    Settings that were put on a topic by hand and that we do not name are kept.

    Raises:
        TopicsError: Kafka cannot be reached in time, or refuses.
    """
    servers = settings.kafka_servers
    try:
        async with asyncio.timeout(timeout_s):
            admin = await _connect(settings)
            try:
                existing = await partitions_of_topics(admin)
                await _create_missing(admin, settings, existing)
                await _wait_for_leaders(admin)
                await _correct_settings(admin, [topic for topic in topics.ALL if topic.name in existing])
            finally:
                await admin.close()
    except TimeoutError:
        raise TopicsError(f"Kafka at {servers} has no topics ready after {timeout_s:.0f} s") from None
    except KafkaRefusedError as error:
        raise TopicsError(str(error)) from None
    except KafkaError as error:
        raise TopicsError(f"Kafka at {servers} refuses the topics: {error}") from error
    for topic in topics.ALL:
        partitions = existing.get(topic.name, settings.partitions)
        if partitions != settings.partitions:
            log.info("topic.partitions_kept", topic=topic.name, partitions=partitions, setting=settings.partitions)


async def _connect(settings: Settings) -> AIOKafkaAdminClient:
    while True:
        admin = AIOKafkaAdminClient(**connection(settings), client_id="midstream-admin", request_timeout_ms=10_000)
        try:
            await admin.start()
        except KafkaConnectionError:
            await admin.close()
            await require_access(settings)
            await asyncio.sleep(_RETRY_S)
        except BaseException:
            await admin.close()
            raise
        else:
            return admin


async def partitions_of_topics(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Return the number of partitions of each topic."""
    return {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics(None)}


async def _create_missing(admin: AIOKafkaAdminClient, settings: Settings, existing: dict[str, int]) -> None:
    missing = [topic for topic in topics.ALL if topic.name not in existing]
    if not missing:
        return
    request = [
        NewTopic(
            name=topic.name,
            num_partitions=settings.partitions,
            replication_factor=settings.replication_factor,
            topic_configs=topic.broker_config(),
        )
        for topic in missing
    ]
    response = await admin.create_topics(request, timeout_ms=10_000)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:  # another process may create them at the same time
            raise TopicsError(f"topic {name} cannot be created: {message[0] if message else error.__name__}")
    log.info("topics.created", topics=[topic.name for topic in missing], partitions=settings.partitions)


async def _wait_for_leaders(admin: AIOKafkaAdminClient) -> None:
    """Creation is acknowledged by the controller; brokers learn of it a moment later."""
    names = {topic.name for topic in topics.ALL}
    while True:
        led = {
            entry["topic"]
            for entry in await admin.describe_topics(sorted(names))
            if entry["partitions"] and all(partition["leader"] >= 0 for partition in entry["partitions"])
        }
        if names <= led:
            return
        await asyncio.sleep(_RETRY_S)


async def _correct_settings(admin: AIOKafkaAdminClient, present: list[topics.Topic]) -> None:
    if not present:
        return
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in present]
    own: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for code, message, _kind, name, entries in response.resources:
            if code:
                raise TopicsError(f"settings of topic {name} cannot be read: {message or for_code(code).__name__}")
            own[name] = _set_on_topic(entries)
    changes = []
    for topic in present:
        wanted = topic.broker_config()
        wrong = {key: value for key, value in wanted.items() if own[topic.name].get(key) != value}
        if wrong:
            log.warning("topic.settings_corrected", topic=topic.name, settings=wrong)
            # AlterConfigs replaces all of a topic's own settings, so those that we do not name go along.
            merged = own[topic.name] | wanted
            changes.append(ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=merged))
    if not changes:
        return
    for response in await admin.alter_configs(changes):
        for code, message, _kind, name in response.resources:
            if code:
                raise TopicsError(f"settings of topic {name} cannot be changed: {message or for_code(code).__name__}")


def _set_on_topic(entries: list[tuple[Any, ...]]) -> dict[str, str]:
    """Settings put on the topic itself; an entry is (name, value, read only, source, ...)."""
    return {entry[0]: entry[1] for entry in entries if entry[3] == _DYNAMIC_TOPIC_CONFIG and entry[1] is not None}


async def member_ids(admin: AIOKafkaAdminClient, group: str) -> list[str]:
    """Return the ids of a group's members, as its coordinator made them; a member that is silent is one until its
    session times out.

    Raises:
        KafkaError: Kafka cannot tell now; one of :data:`COORDINATOR_AWAY` if the group's coordinator cannot. That is
            no group without members.
    """
    [response] = await admin.describe_consumer_groups([group])
    [described] = response.groups
    if described[0]:
        raise for_code(described[0])(f"group {group} cannot be described")
    return [member[0] for member in described[5]]


async def committed_offsets(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    """Return what a group has committed; nothing where its coordinator cannot tell now (see :func:`certain_offsets`).

    Raises:
        KafkaError: Kafka cannot be asked.
    """
    try:
        offsets = await _list_offsets(admin, group, None)
    except GroupCoordinatorNotAvailableError:
        return {}
    return {tp: max(entry.offset, 0) for tp, entry in offsets.items()}


async def certain_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Return what a group has committed of these partitions; those of which it has committed nothing are left out.

    Raises:
        KafkaError: Kafka cannot tell now; one of :data:`COORDINATOR_AWAY` if the coordinator cannot.
    """
    if not partitions:
        return {}
    found = await _list_offsets(admin, group, list(partitions))
    # aiokafka 0.14 does not look at the error of the answer as a whole, which then holds no partition at all.
    if missing := set(partitions) - found.keys():
        raise GroupCoordinatorNotAvailableError(f"group {group}: nothing is said of {len(missing)} partitions")
    return {tp: found[tp].offset for tp in partitions if found[tp].offset >= 0}


_coordinators: WeakKeyDictionary[AIOKafkaAdminClient, dict[str, int]] = WeakKeyDictionary()
"""By connection and group: the broker that has answered for the group the last time."""


async def _list_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: list[TopicPartition] | None
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Ask a group's coordinator, and look for that only where the one of the last time has not answered.

    A broker that is no coordinator any more answers with an error that aiokafka 0.14 does not look at, and no
    partition: then, as after an error, the next call looks for it.
    """
    known = _coordinators.setdefault(admin, {})
    coordinator = known.pop(group, None)
    if coordinator is None:
        coordinator = await admin.find_coordinator(group)
    found: dict[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(
        group, group_coordinator_id=coordinator, partitions=partitions
    )
    if found:
        known[group] = coordinator
    return found


async def add_partitions(admin: AIOKafkaAdminClient, topic: str, partitions: int) -> None:
    """Give a topic more partitions: so many in all.

    Raises:
        KafkaError: Kafka refuses.
    """
    await admin.create_partitions({topic: NewPartitions(total_count=partitions)}, timeout_ms=10_000)
