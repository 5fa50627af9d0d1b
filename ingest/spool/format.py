"""How batches lie in a segment file of the spool. Pure.

A segment is 16 bytes that name it and then records, each::

    magic 4 | version 1 | 0 1 | key length 2 | receipt length 4 | body length 4 | received_at_ms 8 | check of these 4
    key | receipt | body | XXH3-64 of everything before in the record 8

Numbers are little endian. Both checks are seeded with a random number of the segment, which is in the file's name:
a body that imitates a record is therefore none, and a segment whose first bytes are damaged is still readable.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

from midstream.topics import MAX_MESSAGE_BYTES, OVERHEAD_BYTES

MAGIC = b"\xffMS\xfe"  # not UTF-8, so it does not stand in a body of plain JSON
VERSION = 1

_FILE_HEAD = struct.Struct("<8sQ")
_FILE_MAGIC = b"MIDSPOOL"
_FACTS = struct.Struct("<4sBxHIIq")
_HEAD_CHECK = struct.Struct("<I")
_CHECK = struct.Struct("<Q")

FILE_HEAD_BYTES = _FILE_HEAD.size
HEAD_BYTES = _FACTS.size + _HEAD_CHECK.size
CHECK_BYTES = _CHECK.size
MAX_RECEIPT_BYTES = OVERHEAD_BYTES
MAX_KEY_BYTES = 0xFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """A batch as it lies in a segment, from ``start`` to before ``end``."""

    start: int
    end: int
    received_at_ms: int
    key: bytes
    receipt: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes from ``start`` to before ``end`` that are no record."""

    start: int
    end: int


def file_head(seed: int) -> bytes:
    """Return what a segment begins with."""
    return _FILE_HEAD.pack(_FILE_MAGIC, seed)


def record_bytes(key: bytes, receipt: bytes, body: bytes) -> int:
    """Return the size of a record."""
    return HEAD_BYTES + len(key) + len(receipt) + len(body) + CHECK_BYTES


def pack(seed: int, received_at_ms: int, key: bytes, receipt: bytes, body: bytes) -> list[bytes]:
    """Return a record as the pieces to be written one after the other; the body is not copied.

    Raises:
        ValueError: a part is larger than a record takes.
    """
    if len(key) > MAX_KEY_BYTES or len(receipt) > MAX_RECEIPT_BYTES or len(body) > MAX_MESSAGE_BYTES:
        raise ValueError("a batch is larger than a record of the spool takes")
    facts = _FACTS.pack(MAGIC, VERSION, len(key), len(receipt), len(body), received_at_ms)
    head = facts + _HEAD_CHECK.pack(_head_check(facts, seed)) + key + receipt
    check = xxhash.xxh3_64(head, seed=seed)
    check.update(body)
    return [head, body, _CHECK.pack(check.intdigest())]


def scan(data: bytes, seed: int) -> Iterator[Record | Damage]:
    """Return everything in a segment, in order and without a gap: its records, and what lies between them.

    After damage it goes on with the next record that is whole.
    """
    at = FILE_HEAD_BYTES if data.startswith(file_head(seed)) else 0
    damaged_from = -1
    while at < len(data):
        record = _record_at(data, at, seed)
        if record is None:
            damaged_from = at if damaged_from < 0 else damaged_from
            at = data.find(MAGIC, at + 1)
            if at < 0:
                break
            continue
        if damaged_from >= 0:
            yield Damage(damaged_from, at)
            damaged_from = -1
        yield record
        at = record.end
    if damaged_from >= 0:
        yield Damage(damaged_from, len(data))


def is_torn(tail: bytes, seed: int) -> bool:
    """Whether the end of a segment is what a write leaves behind that was cut short: nothing of it was promised.

    A file system may have made the file longer before the bytes were there: zeros at the end count as not written.
    """
    written = tail.rstrip(b"\0")
    if len(written) < HEAD_BYTES:
        return MAGIC.startswith(written[: len(MAGIC)]) or file_head(seed).startswith(written)
    size = _announced_bytes(tail, 0, seed)
    return size is not None and len(written) < size


def _record_at(data: bytes, at: int, seed: int) -> Record | None:
    size = _announced_bytes(data, at, seed)
    if size is None or at + size > len(data):
        return None
    _, _, key_bytes, receipt_bytes, body_bytes, received_at_ms = _FACTS.unpack_from(data, at)
    end = at + size
    checked = memoryview(data)[at : end - CHECK_BYTES]
    if xxhash.xxh3_64_intdigest(checked, seed=seed) != _CHECK.unpack_from(data, end - CHECK_BYTES)[0]:
        return None
    key_at = at + HEAD_BYTES
    receipt_at = key_at + key_bytes
    body_at = receipt_at + receipt_bytes
    return Record(
        at, end, received_at_ms, data[key_at:receipt_at], data[receipt_at:body_at], data[body_at : body_at + body_bytes]
    )


def _announced_bytes(data: bytes, at: int, seed: int) -> int | None:
    """Return the size of the record that begins here, None where none does."""
    if at + HEAD_BYTES > len(data) or not data.startswith(MAGIC, at):
        return None
    facts = data[at : at + _FACTS.size]
    if _HEAD_CHECK.unpack_from(data, at + _FACTS.size)[0] != _head_check(facts, seed):
        return None
    _, version, key_bytes, receipt_bytes, body_bytes, _ = _FACTS.unpack(facts)
    if version != VERSION:
        return None
    return HEAD_BYTES + int(key_bytes) + int(receipt_bytes) + int(body_bytes) + CHECK_BYTES


def _head_check(facts: bytes, seed: int) -> int:
    return int(xxhash.xxh3_64_intdigest(facts, seed=seed)) & 0xFFFFFFFF
