"""Lines and rows, cut where hours end."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.exhaust.days.builder.errors import BuildError
from serve.exhaust.days.builder.lines import LineStream, counted
from serve.exhaust.days.builder.tables import RowStream, read_batches

SCHEMA = pa.schema([("n", pa.int64())])


@given(st.lists(st.integers(0, 6), max_size=6), st.integers(1, 9))
def test_lines_are_cut_at_every_count_and_chunk(counts: list[int], size: int) -> None:
    lines = [b"x" * (number % 4) + b"%d\n" % number for number in range(sum(counts))]
    text = b"".join(lines)
    stream = LineStream(text[start : start + size] for start in range(0, len(text), size))
    for count in counts:
        assert b"".join(stream.take(count)) == b"".join(lines[:count])
        del lines[:count]
    stream.finish()


def test_lines_that_are_missing_or_too_many() -> None:
    with pytest.raises(BuildError, match="1 events fewer"):
        list(LineStream([b"a\n", b"b"]).take(2))
    stream = LineStream([b"a\nb\n"])
    list(stream.take(1))
    with pytest.raises(BuildError, match="more"):
        stream.finish()


@pytest.mark.parametrize("chunks", [[b"a\n"], [b"a\nb\nc\n"], [b"a\nb\n", b"c"], [], [b"a\nb"]])
def test_an_answer_that_is_not_what_was_counted(chunks: list[bytes]) -> None:
    with pytest.raises(BuildError, match="for the 2 events"):
        list(counted(chunks, 2, "A part"))


def test_an_answer_that_is() -> None:
    assert b"".join(counted([b"a\n", b"", b"b\n"], 2, "A part")) == b"a\nb\n"


def packed(*batches: list[int]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        for rows in batches:
            writer.write_batch(pa.RecordBatch.from_pylist([{"n": row} for row in rows], SCHEMA))
    return bytes(sink.getvalue().to_pybytes())


def test_rows_are_cut_like_lines() -> None:
    text = packed([1, 2, 3], [], [4], [5, 6])
    rows = RowStream(read_batches(iter([text[:50], text[50:]]), 6))
    assert rows.schema() == SCHEMA
    taken = [[row for batch in rows.take(count) for row in batch.column("n").to_pylist()] for count in (2, 0, 3, 1)]
    assert taken == [[1, 2], [], [3, 4, 5], [6]]
    rows.finish()


def test_rows_that_are_missing_or_too_many() -> None:
    with pytest.raises(BuildError, match="2 rows came for the 3"):
        list(read_batches(iter([packed([1, 2])]), 3))
    with pytest.raises(BuildError, match="fewer"):
        list(RowStream(iter([])).take(1))
    rows = RowStream(read_batches(iter([packed([1, 2])]), 2))
    list(rows.take(1))
    with pytest.raises(BuildError, match="more"):
        rows.finish()


@pytest.mark.parametrize("cut", [0, 3, 60, -9])
def test_a_stream_that_breaks_off_is_not_taken_for_whole(cut: int) -> None:
    with pytest.raises((BuildError, OSError)):
        list(read_batches(iter([packed([1, 2], [3])[:cut]]), 3))
