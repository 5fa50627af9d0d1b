"""The topics on a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from midstream import topics
from midstream.kafka.admin import TopicsError, ensure_topics
from midstream.settings import Settings
from tests.support.pipeline import PARTITIONS, Pipeline
from tests.support.ports import free_ports

_CHANGED_S = 20.0


@pytest.fixture
async def admin(pipeline: Pipeline) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=pipeline.kafka_servers)
    await client.start()
    yield client
    await client.close()


def settings_of(pipeline: Pipeline, **changes: object) -> Settings:
    return Settings.model_validate({"kafka": pipeline.kafka_servers, **changes})


async def settings_on(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(_code, _message, _kind, _name, entries)] = response.resources
    return {entry[0]: entry[1] for entry in entries}


async def settings_once(admin: AIOKafkaAdminClient, topic: str, wanted: dict[str, str]) -> dict[str, str]:
    """Return a topic's settings once they hold the wanted ones: a broker answers before it goes by what was changed."""
    async with asyncio.timeout(_CHANGED_S):
        while not wanted.items() <= (found := await settings_on(admin, topic)).items():  # noqa: ASYNC110  Kafka tells nobody
            await asyncio.sleep(0.1)
    return found


async def test_every_topic_is_there_as_declared(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    described = {entry["topic"]: entry for entry in await admin.describe_topics()}
    for topic in topics.ALL:
        assert len(described[topic.name]["partitions"]) == PARTITIONS
        found = await settings_on(admin, topic.name)
        assert topic.broker_config().items() <= found.items()


async def test_a_changed_setting_is_put_right_and_one_of_the_operator_is_kept(
    pipeline: Pipeline, admin: AIOKafkaAdminClient
) -> None:
    name = topics.DEAD.name
    changed = {**topics.DEAD.broker_config(), "message.timestamp.type": "CreateTime", "segment.ms": "3600000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=changed)])
    await settings_once(admin, name, {"message.timestamp.type": "CreateTime"})
    await ensure_topics(settings_of(pipeline))
    found = await settings_once(admin, name, topics.DEAD.broker_config())
    assert found["segment.ms"] == "3600000"


async def test_the_number_of_partitions_is_never_changed(pipeline: Pipeline, admin: AIOKafkaAdminClient) -> None:
    await ensure_topics(settings_of(pipeline, partitions=PARTITIONS + 3))
    described = {entry["topic"]: len(entry["partitions"]) for entry in await admin.describe_topics()}
    assert all(described[topic.name] == PARTITIONS for topic in topics.ALL)


async def test_no_kafka_is_an_error_within_the_time_limit() -> None:
    [port] = free_ports(1)
    with pytest.raises(TopicsError, match="after 1 s"):
        await ensure_topics(Settings.model_validate({"kafka": f"127.0.0.1:{port}"}), timeout_s=1)
