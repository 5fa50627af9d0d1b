import gzip
import tracemalloc

import pytest

from midstream.inflate import InflatedTooLargeError, InflateError, inflate

PLAIN = b'{"events":[]}'


def test_gzip_is_inflated() -> None:
    assert inflate(gzip.compress(PLAIN), 100) == PLAIN


def test_plain_body_comes_back_as_it_is() -> None:
    assert inflate(PLAIN, 100) is PLAIN


def test_members_that_follow_each_other_are_one_body() -> None:
    assert inflate(gzip.compress(PLAIN[:5]) + gzip.compress(PLAIN[5:]), 100) == PLAIN


@pytest.mark.parametrize("tail", [b"\0\0\0", b"garbage", b"\x1f"])
def test_what_follows_the_stream_is_passed_over(tail: bytes) -> None:
    assert inflate(gzip.compress(PLAIN) + tail, 100) == PLAIN


@pytest.mark.parametrize("cut", [2, 3, 9, 10, 12, 20, -9, -8, -4, -1])
def test_truncated_gzip_is_refused(cut: int) -> None:
    with pytest.raises(InflateError, match="cut short"):
        inflate(gzip.compress(PLAIN * 5)[:cut], 1000)


def test_truncated_second_member_is_refused() -> None:
    with pytest.raises(InflateError):
        inflate(gzip.compress(PLAIN) + gzip.compress(PLAIN)[:-3], 1000)


@pytest.mark.parametrize(
    "body",
    [
        b"\x1f\x8b" + PLAIN,
        b"\x1f\x8b\x08\x00" + b"\xff" * 40,
        gzip.compress(PLAIN)[:-8] + b"\0" * 8,  # checksum and length of something else
        b"\x1f\x8b\x07" + gzip.compress(PLAIN)[3:],  # a method that is not deflate
    ],
)
def test_corrupt_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(InflateError):
        inflate(body, 1000)


def test_limit_is_exact() -> None:
    body = gzip.compress(b"x" * 1000)
    assert len(inflate(body, 1000)) == 1000
    with pytest.raises(InflatedTooLargeError):
        inflate(body, 999)


def test_limit_holds_for_plain_bodies() -> None:
    with pytest.raises(InflatedTooLargeError):
        inflate(b"x" * 1001, 1000)


def test_limit_counts_all_members() -> None:
    with pytest.raises(InflatedTooLargeError):
        inflate(gzip.compress(b"x" * 600) * 2, 1000)


def test_bomb_is_not_inflated_whole() -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    tracemalloc.start()
    with pytest.raises(InflatedTooLargeError):
        inflate(bomb, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_very_many_members_are_refused() -> None:
    with pytest.raises(InflateError, match="members"):
        inflate(gzip.compress(b"") * 20_000, 1000)
