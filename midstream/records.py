"""Kafka values as Avro, single-object encoded (Avro specification 1.11, "Single-object encoding").

A value is ``C3 01``, the schema's CRC-64-AVRO fingerprint (8 bytes, little endian) and the Avro body. The schemas are
the files ``schemas/avro/<topic>.v<N>.avsc``; values written with any version there are read as the newest.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

_MARK = b"\xc3\x01"
_HEAD_BYTES = len(_MARK) + 8


class RecordError(ValueError):
    """A Kafka value is not a record of its topic."""


@dataclass(frozen=True, slots=True)
class RecordSchema:
    """The newest schema of a topic, and how to read older ones."""

    newest: Any
    head: bytes
    by_head: dict[bytes, Any]


def _head_of(parsed: Any) -> bytes:
    digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO"))
    return _MARK + digest


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
    return RecordSchema(newest, _head_of(newest), {_head_of(parsed): parsed for parsed in versions.values()})


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
        RecordError: not single-object encoded, of an unknown schema, or cut short.
        MemoryError: for whatever reason, which may lie in this process; it says nothing about the value.
    """
    schema = record_schema(topic)
    writer = schema.by_head.get(value[:_HEAD_BYTES])
    if writer is None:
        raise RecordError(f"value of {topic} does not begin with the fingerprint of a known schema")
    body = io.BytesIO(value)
    body.seek(_HEAD_BYTES)
    try:
        record = fastavro.schemaless_reader(body, writer, schema.newest)
    except (EOFError, ValueError, IndexError, OverflowError) as error:
        raise RecordError(f"value of {topic} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise RecordError(f"value of {topic} is no record")
    return record
