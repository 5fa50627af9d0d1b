import os

import cramjam
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from midstream.kafka.compression import ZSTD_LEVEL, compress_quickly

HEAD_BYTES = 61
"""Of a record batch of format 2: what is not compressed."""


def test_record_batches_are_compressed_at_the_level_and_can_be_read() -> None:
    compress_quickly()
    values = [b'{"eid":"LOG","mid":"%s"}' % os.urandom(8).hex().encode() * 20 for _ in range(50)]
    builder = BatchBuilder(1024 * 1024, 4)  # 4: zstd
    for value in values:
        assert builder.append(timestamp=0, key=b"k", value=value, headers=[("receipt", b"r")]) is not None
    data = bytes(builder._build())
    plain = bytes(cramjam.zstd.decompress(data[HEAD_BYTES:]))
    assert data[HEAD_BYTES:] == bytes(cramjam.zstd.compress(plain, level=ZSTD_LEVEL))
    assert data[HEAD_BYTES:] != bytes(cramjam.zstd.compress(plain, level=3))
    batch = MemoryRecords(data).next_batch()
    assert batch is not None
    assert [record.value for record in batch] == values
