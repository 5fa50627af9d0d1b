"""The topic ``schemas`` on a real Kafka: what is announced there, and what others write with it."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import fastavro
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaProducer

from midstream import topics
from midstream.kafka import schemas as module
from midstream.kafka.schemas import SchemaReader, SchemasUnavailableError, announced_key
from midstream.records import head_of, schema_text, topics_with_schemas
from midstream.settings import Settings
from midstream.topics import Topic
from tests.integration.outside import Outside, Record, make_event, now_ms, produce, unique
from tests.support.pipeline import PARTITIONS
from tests.support.ports import free_ports
from tests.support.waiting import wait_until
from tests.unit.store.rows import valid_row


def settings_of(outside: Outside) -> Settings:
    return Settings.model_validate({"kafka": outside.pipeline.kafka_servers})


def later(topic: str) -> tuple[bytes, dict[str, Any], Any]:
    """Return what a later version's schema of a topic could be: the head of its values, its JSON, and it parsed."""
    schema = json.loads(schema_text(topic)[1])
    schema["fields"].append({"name": unique("of_a_later_version").replace("-", "_"), "type": "string", "default": "x"})
    parsed = fastavro.parse_schema(schema)
    return head_of(parsed), schema, parsed


def value_of(head: bytes, parsed: Any, record: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, record)
    return head + out.getvalue()


def block(mid: str) -> dict[str, Any]:
    event = make_event(mid=mid)
    rows = valid_row(event, json.dumps(event).encode(), unique("batch"), 0)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    arrow = sink.getvalue().to_pybytes()
    return {"rows": 1, "partitions": PARTITIONS, "oldest_received_at_ms": now_ms(), "arrow": arrow}


def announce(outside: Outside, topic: str, head: bytes, text: bytes) -> None:
    produce(outside.pipeline, topics.SCHEMAS.name, [Record(text, announced_key(topic, head))])


def test_who_writes_has_said_with_what(outside: Outside) -> None:
    reader = SchemaReader(settings_of(outside))
    running = {topics.VALID.name, topics.DEAD.name, topics.COLLECTORS.name, topics.ASSIGNMENT.name}
    assert running < set(topics_with_schemas())
    for topic in running:
        head, text = schema_text(topic)
        assert reader.find(topic, head) == text
    # The publisher of dimensions connects when it is needed.
    outside.operate("POST", "/v1/dimensions/user", {"id": unique("u"), "attributes": {}})
    head, text = schema_text(topics.DIMENSIONS.name)
    assert reader.find(topics.DIMENSIONS.name, head) == text


def test_what_a_later_version_seals_is_stored(outside: Outside) -> None:
    head, schema, parsed = later(topics.VALID.name)
    announce(outside, topics.VALID.name, head, json.dumps(schema).encode())
    mid = unique("m")
    produce(outside.pipeline, topics.VALID.name, [Record(value_of(head, parsed, block(mid)), partition=0)])
    wait_until("it is stored", lambda: outside.events([mid]), 30)


def test_what_a_later_version_says_of_an_object_is_known(outside: Outside) -> None:
    head, schema, parsed = later(topics.DIMENSIONS.name)
    announce(outside, topics.DIMENSIONS.name, head, json.dumps(schema).encode())
    id_ = unique("u")
    row = {"type": "user", "id": id_, "attributes": "{}", "version": 7, "deleted": False, "updated_at_ms": now_ms()}
    produce(outside.pipeline, topics.DIMENSIONS.name, [Record(value_of(head, parsed, row), f"user/{id_}".encode())])
    sql = "SELECT version FROM dimensions WHERE id = {id:String}"
    wait_until("it is in ClickHouse", lambda: outside.rows(sql, id=id_) == [{"version": 7}], 30)


@pytest.mark.parametrize("text", [b"no JSON", b"{}", b'"string"', b'{"type": "record"}', b"[" * 50_000, b"\xff"])
def test_a_schema_that_is_not_the_one_it_says_is_none(outside: Outside, text: bytes) -> None:
    head, schema, _ = later(topics.VALID.name)
    announce(outside, topics.VALID.name, head, text)
    reader = SchemaReader(settings_of(outside))
    assert reader.find(topics.VALID.name, head) is None
    # Said again within seconds, it is not asked for anew; by another process it is.
    announce(outside, topics.VALID.name, head, json.dumps(schema).encode())
    assert reader.find(topics.VALID.name, head) is None
    assert json.loads(SchemaReader(settings_of(outside)).find(topics.VALID.name, head) or "") == schema


async def test_who_writes_does_not_begin_without_the_topic(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCHEMAS", Topic(unique("no-such-topic")))
    producer = AIOKafkaProducer(bootstrap_servers=outside.pipeline.kafka_servers, acks="all")
    await producer.start()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(SchemasUnavailableError, match="run `midstream migrate`"):
                await module.announce(producer, [topics.RAW.name, topics.VALID.name])
            await module.announce(producer, [topics.RAW.name])
    finally:
        await producer.stop()


def test_where_nothing_can_be_said_that_is_said(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the record, which is tried again."""
    head, _, _ = later(topics.VALID.name)
    [port] = free_ports(1)
    away = Settings.model_validate({"kafka": f"127.0.0.1:{port}", "kafka_timeout_ms": 1_000})
    with pytest.raises(SchemasUnavailableError, match=f"{topics.VALID.name} has the schema {head[2:].hex()}"):
        SchemaReader(away).find(topics.VALID.name, head)
    monkeypatch.setattr(module, "SCHEMAS", Topic(unique("no-such-topic")))
    there = Settings.model_validate({"kafka": outside.pipeline.kafka_servers, "kafka_timeout_ms": 1_000})
    with pytest.raises(SchemasUnavailableError, match="midstream migrate"):
        SchemaReader(there).find(topics.VALID.name, head)
