import fastavro
import pyarrow as pa
import pytest

from midstream import topics
from midstream.columns import VALID
from midstream.records import RecordError, encode_record
from processors.store.block import mid_hashes, read_block
from processors.validate.split import hash_mid
from tests.unit.store.rows import event, sealed


def value_of(table: pa.Table, rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return encode_record(
        topics.VALID.name,
        {"rows": rows, "partitions": 1, "oldest_received_at_ms": 0, "arrow": sink.getvalue().to_pybytes()},
    )


def test_what_validate_sealed_is_read_back() -> None:
    block = read_block(sealed([(event("a"), "b1", 0), (event("b"), "b1", 1)]))[0]
    assert block.schema == VALID
    assert block.column("mid").to_pylist() == ["a", "b"]
    assert mid_hashes(block).tolist() == [hash_mid("a"), hash_mid("b")]


@pytest.mark.parametrize("damage", ["empty", "json", "cut", "flipped", "tail"])
def test_a_damaged_value_is_a_record_error(damage: str) -> None:
    value = sealed([(event(f"m{n}"), "b1", n) for n in range(50)])
    damaged = {
        "empty": b"",
        "json": b'{"rows":1}',
        "cut": value[: len(value) // 2],
        "flipped": value[:200] + bytes(byte ^ 255 for byte in value[200:400]) + value[400:],
        "tail": value[:-40],
    }[damage]
    with pytest.raises(RecordError):
        read_block(damaged)


def test_other_columns_or_another_count_are_a_record_error() -> None:
    with pytest.raises(RecordError, match="columns"):
        read_block(value_of(pa.table({"mid": ["a"]}), 1))
    good = pa.Table.from_batches([read_block(sealed([(event("a"), "b1", 0)]))[0]])
    with pytest.raises(RecordError, match="says 2 rows"):
        read_block(value_of(good, 2))


@pytest.mark.parametrize("error", [MemoryError, pa.ArrowMemoryError])
@pytest.mark.parametrize("where", ["avro", "arrow"])
def test_memory_that_ran_out_says_nothing_about_the_value(
    monkeypatch: pytest.MonkeyPatch, error: type[MemoryError], where: str
) -> None:
    value = sealed([(event("a"), "b1", 0)])

    def fail(*_: object, **__: object) -> None:
        raise error("out of memory")

    place = {"avro": (fastavro, "schemaless_reader"), "arrow": (pa.ipc, "open_stream")}[where]
    monkeypatch.setattr(*place, fail)
    with pytest.raises(MemoryError):
        read_block(value)
    monkeypatch.undo()
    assert read_block(value)[0].num_rows == 1


def test_a_length_beyond_all_memory_is_a_record_error() -> None:
    value = sealed([(event("a"), "b1", 0)])
    longest = b"\xfe" + b"\xff" * 8 + b"\x01"  # 2**63 - 1 as Avro writes it
    refused = 0
    for at in range(10, 40):
        try:
            read_block(value[:at] + longest + value[at + 1 :])
        except RecordError:
            refused += 1
    assert refused > 20
