"""Values of other versions: learned schemas, and what they are read as."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest

from midstream import records, topics
from midstream.records import (
    OtherVersionError,
    RecordError,
    decode_record,
    encode_record,
    head_of,
    learn_from,
    record_schema,
    schema_text,
    topics_with_schemas,
)
from processors.attempts.lane import is_of_the_environment

DIMENSION = {"type": "user", "id": "u", "attributes": "{}", "version": 1, "deleted": False, "updated_at_ms": 5}


class Learned:
    """Stands in for the topic of schemas."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, bytes], str] = {}
        self.asked: list[tuple[str, bytes]] = []

    def __call__(self, topic: str, head: bytes) -> str | None:
        self.asked.append((topic, head))
        return self.texts.get((topic, head))


@pytest.fixture
def learned() -> Iterator[Learned]:
    before = records._learn
    found = Learned()
    learn_from(found)
    yield found
    learn_from(before)


def changed(topic: str, edit: Any) -> Any:
    schema = json.loads(schema_text(topic)[1])
    edit(schema)
    return schema


def written(schema: Any, record: dict[str, Any]) -> tuple[bytes, bytes]:
    parsed = fastavro.parse_schema(schema)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, record)
    return head_of(parsed), head_of(parsed) + out.getvalue()


def test_every_topic_of_ours_but_two_has_a_schema() -> None:
    without = {topics.RAW.name, topics.DEVICE.name, topics.SCHEMAS.name}
    assert set(topics_with_schemas()) == {topic.name for topic in topics.ALL} - without


@pytest.mark.parametrize("topic", list(topics_with_schemas()))
def test_what_is_announced_is_what_values_are_written_with(topic: str) -> None:
    head, text = schema_text(topic)
    assert head_of(fastavro.parse_schema(json.loads(text))) == head == record_schema(topic).head


def test_a_value_of_another_version_is_read_as_of_this_one(learned: Learned) -> None:
    later = changed("dimensions", lambda s: s["fields"].insert(0, {"name": "colour", "type": ["null", "string"]}))
    head, value = written(later, {**DIMENSION, "colour": "red"})
    learned.texts["dimensions", head] = json.dumps(later)
    assert decode_record("dimensions", value) == DIMENSION
    assert learned.asked == [("dimensions", head)]


def test_nobody_is_asked_for_what_is_known_or_no_record_at_all(learned: Learned) -> None:
    assert decode_record("dimensions", encode_record("dimensions", DIMENSION)) == DIMENSION
    for value in (b"", b"{}", b"\xc3\x01", b"\xc3\x01seven..", b"\x01\xc3" + b"x" * 20):
        with pytest.raises(RecordError):
            decode_record("dimensions", value)
    assert learned.asked == []


def test_what_nobody_writes_with_is_no_record(learned: Learned) -> None:
    with pytest.raises(RecordError, match="known schema"):
        decode_record("dimensions", b"\xc3\x01" + b"x" * 50)
    assert learned.asked == [("dimensions", b"\xc3\x01" + b"x" * 8)]


def test_a_schema_of_another_topic_does_not_count(learned: Learned) -> None:
    value = encode_record("dimensions", DIMENSION)
    with pytest.raises(RecordError):
        decode_record("collectors", value)
    assert learned.asked == [("collectors", value[:10])]


def test_what_this_version_cannot_read_is_no_fault_of_the_record(learned: Learned) -> None:
    later = changed("dimensions", lambda s: s["fields"].pop(3))
    head, value = written(later, {name: DIMENSION[name] for name in DIMENSION if name != "version"})
    learned.texts["dimensions", head] = json.dumps(later)
    with pytest.raises(OtherVersionError, match=r"dimensions .*upgrade this process") as raised:
        decode_record("dimensions", value)
    assert is_of_the_environment(raised.value)


def test_a_learned_schema_does_not_make_a_damaged_value_readable(learned: Learned) -> None:
    later = changed("dimensions", lambda s: s["fields"].append({"name": "colour", "type": "string"}))
    head, value = written(later, {**DIMENSION, "colour": "red"})
    learned.texts["dimensions", head] = json.dumps(later)
    with pytest.raises(RecordError):
        decode_record("dimensions", value[:14])


def test_what_the_look_up_raises_is_raised() -> None:
    def fail(topic: str, head: bytes) -> str | None:
        raise ConnectionError(topic)

    before = records._learn
    learn_from(fail)
    try:
        with pytest.raises(ConnectionError):
            decode_record("dimensions", b"\xc3\x01" + b"x" * 50)
    finally:
        learn_from(before)
