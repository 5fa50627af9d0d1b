"""Gzip whose bytes depend on the text alone, and reading ahead."""

import gzip
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.exhaust.days.builder.ahead import ahead
from serve.exhaust.days.builder.gzips import BLOCK_BYTES, compressed

TEXT = random.Random(3).randbytes(BLOCK_BYTES * 3 // 2).hex().encode()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, len(TEXT)])
def test_it_is_gzip(size: int, tmp_path: Path) -> None:
    packed = b"".join(compressed([TEXT[:size]]))
    assert gzip.decompress(packed) == TEXT[:size]
    one = zlib.decompressobj(31)  # one member, ended, and nothing after it
    assert one.decompress(packed) == TEXT[:size]
    assert (one.eof, one.unused_data) == (True, b"")


@settings(max_examples=20)
@given(st.integers(1, 700_000))
def test_how_the_text_is_cut_does_not_show(size: int) -> None:
    chunks = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
    assert b"".join(compressed(chunks)) == b"".join(compressed([b"", TEXT, b""]))


def test_reading_ahead_keeps_the_order_and_the_errors() -> None:
    def failing() -> object:
        yield 5
        raise ValueError("half way")

    with ahead([[1, 2], [], [3], range(4, 5)], 1) as items:
        assert list(items) == [1, 2, 3, 4]
    with ahead([[1], failing(), [7]], 4) as items, pytest.raises(ValueError, match="half way"):  # type: ignore[list-item]
        list(items)


def test_the_next_is_begun_before_it_is_needed_but_not_the_one_after() -> None:
    begun: list[int] = []

    def source(number: int) -> object:
        begun.append(number)
        yield number

    with ahead((source(number) for number in range(5)), 1) as items:  # type: ignore[misc]
        next(items)
        from tests.support.waiting import wait_until

        wait_until("the next one", lambda: begun == [0, 1] or begun == [1, 0], 5)
        next(items)
        wait_until("the third", lambda: sorted(begun) == [0, 1, 2], 5)
