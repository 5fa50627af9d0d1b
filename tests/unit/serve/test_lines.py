import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.lines import GzipError, Inflater, LineSplitter


def split(data: bytes, step: int, max_line_bytes: int = 1000) -> list[bytes | None]:
    splitter = LineSplitter(max_line_bytes)
    lines: list[bytes | None] = []
    for start in range(0, len(data), step):
        lines += splitter.feed(data[start : start + step])
    return lines + splitter.finish()


def inflate(data: bytes, step: int, piece_bytes: int = 1000) -> bytes:
    inflater = Inflater(piece_bytes)
    out = [piece for start in range(0, len(data), step) for piece in inflater.feed(data[start : start + step])]
    inflater.finish()
    return b"".join(out)


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))),
    step=st.integers(1, 50),
)
def test_lines_are_the_same_however_the_body_is_cut(lines: list[bytes], step: int) -> None:
    lines = [b"first", *lines]
    assert split(b"\n".join([*lines, b"end"]), step) == [*lines, b"end"]
    assert split(b"\r\n".join([*lines, b""]), step) == lines


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_line_over_the_limit_becomes_none_and_costs_only_itself(step: int) -> None:
    body = b"a" * 1000 + b"\n" + b"b" * 1001 + b"\nc\n" + b"d" * 5000
    assert split(body, step) == [b"a" * 1000, None, b"c", None]


def test_a_long_line_is_not_held() -> None:
    splitter = LineSplitter(1000)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    assert sum(len(part) for part in splitter._parts) == 0
    assert splitter.feed(b"\ny\n") == [None, b"y"]


def test_a_byte_order_mark_before_the_first_line_is_dropped() -> None:
    assert split(b"\xef\xbb\xbfa\n\xef\xbb\xbfb", 1) == [b"a", b"\xef\xbb\xbfb"]


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_gzip_members_may_follow_each_other_and_end_in_padding(step: int) -> None:
    data = b"some text " * 500
    packed = gzip.compress(data[:999]) + gzip.compress(data[999:]) + bytes(10)
    assert inflate(packed, step) == data


def test_a_bomb_comes_in_small_pieces() -> None:
    inflater = Inflater(4096)
    sizes = [len(piece) for piece in inflater.feed(gzip.compress(bytes(20_000_000)))]
    inflater.finish()
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 4096


PACKED = gzip.compress(b"hello " * 100)


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (PACKED[:-1], "cut short"),
        (PACKED[:12], "cut short"),
        (PACKED[:2], "cut short"),
        (PACKED[:-5] + b"12345", "corrupt"),
        (b"\x1f\x8b" + b"\xff" * 50, "corrupt"),
        (PACKED + b"more", "followed by something else"),
        (PACKED + b"\0\0more", "followed by something else"),
    ],
)
@pytest.mark.parametrize("step", [1, 100_000])
def test_broken_gzip_is_an_error(packed: bytes, words: str, step: int) -> None:
    with pytest.raises(GzipError, match=words):
        inflate(packed, step)
