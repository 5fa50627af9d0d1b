"""Kafka values as Avro, single-object encoded (Avro specification 1.11, "Single-object encoding").

A value is ``C3 01``, the schema's CRC-64-AVRO fingerprint (8 bytes, little endian) and the Avro body. The schemas are
the files ``schemas/avro/<topic>.v<N>.avsc``; values written with any version there are read as the newest. So are those
of a newer Midstream, whose schemas a process learns from others by :func:`learn_from`.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError
from fastavro.schema import fingerprint, to_parsing_canonical_form

_MARK = b"\xc3\x01"
_HEAD_BYTES = len(_MARK) + 8

MAX_LEARNED = 256
"""How many schemas of other versions a process holds."""


class RecordError(ValueError):
    """A Kafka value is not a record of its topic."""


class OtherVersionError(Exception):
    """A Kafka value is a record of its topic, of a version of Midstream that this one cannot read. It is no fault of
    the record: another process can."""


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """The newest schema of a topic, and how to read older ones."""

    newest: Any
    head: bytes
    by_head: dict[bytes, Any]


_learn: Callable[[str, bytes], str | None] = lambda _topic, _head: None  # noqa: E731 - replaced by learn_from()


def learn_from(find: Callable[[str, bytes], str | None]) -> None:
    """Have this process ask ``find`` for schemas that it does not know.

    Args:
        find: called with a topic and the first ten bytes of a value, for every such value, from any thread; returns
            the schema as JSON, or None when nobody writes with such a one. What it raises, :func:`decode_record` does.
    """
    global _learn
    _learn = find


def head_of(parsed: Any) -> bytes:
    """Return the bytes that values begin with which are written with a parsed schema."""
    digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO"))
    return _MARK + digest


@cache
def schema_text(topic: str) -> tuple[bytes, str]:
    """Return what values of ``topic`` begin with that this process writes, and their schema as JSON, its documentation
    and defaults left out: they are not needed to read what is written."""
    newest = record_schema(topic)
    return newest.head, to_parsing_canonical_form(newest.newest)


@cache
def record_schema(topic: str) -> RecordSchema:
    """Load the schema files of ``topic``.

    Raises:
        LookupError: there is none.
    """
    pattern = re.compile(re.escape(topic) + r"\.v(\d+)\.avsc")
    versions: dict[int, Any] = {}
    for entry in resources.files("schemas").joinpath("avro").iterdir():
        if match := pattern.fullmatch(entry.name):
            versions[int(match[1])] = fastavro.parse_schema(json.loads(entry.read_text("utf-8")))
    if not versions:
        raise LookupError(f"no Avro schema of topic {topic} in schemas/avro")
    newest = versions[max(versions)]
    return RecordSchema(newest, head_of(newest), {head_of(parsed): parsed for parsed in versions.values()})


def topics_with_schemas() -> Iterator[str]:
    """Yield the topics that have schema files, each once."""
    names = {entry.name for entry in resources.files("schemas").joinpath("avro").iterdir()}
    yield from sorted({match[1] for name in names if (match := re.fullmatch(r"(.+)\.v\d+\.avsc", name))})


def encode_record(topic: str, record: dict[str, Any]) -> bytes:
    """Return ``record`` as a value of ``topic``."""
    schema = record_schema(topic)
    out = io.BytesIO()
    out.write(schema.head)
    fastavro.schemaless_writer(out, schema.newest, record)
    return out.getvalue()


def decode_record(topic: str, value: bytes) -> dict[str, Any]:
    """Return a value of ``topic`` as a record of the newest schema.

    Raises:
        RecordError: not single-object encoded, of a schema that nobody writes with, or cut short.
        OtherVersionError: of a schema that cannot be read as this process's own.
        MemoryError: for whatever reason, which may lie in this process; it says nothing about the value.
        Exception: what the function given to :func:`learn_from` raises.
    """
    schema = record_schema(topic)
    head = value[:_HEAD_BYTES]
    writer = schema.by_head.get(head) or _learned(topic, head)
    if writer is None:
        raise RecordError(f"value of {topic} does not begin with the fingerprint of a known schema")
    body = io.BytesIO(value)
    body.seek(_HEAD_BYTES)
    try:
        record = fastavro.schemaless_reader(body, writer, schema.newest)
    except SchemaResolutionError as error:
        raise OtherVersionError(
            f"value of {topic} was written by another version of Midstream, with a schema ({head[2:].hex()}) that this "
            f"one cannot read: upgrade this process ({error})"
        ) from error
    except (EOFError, ValueError, IndexError, OverflowError) as error:
        raise RecordError(f"value of {topic} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise RecordError(f"value of {topic} is no record")
    return record


def _learned(topic: str, head: bytes) -> Any:
    if not head.startswith(_MARK) or len(head) < _HEAD_BYTES:
        return None
    text = _learn(topic, head)
    return None if text is None else _parsed(text)


@lru_cache(maxsize=MAX_LEARNED)
def _parsed(text: str) -> Any:
    return fastavro.parse_schema(json.loads(text))
