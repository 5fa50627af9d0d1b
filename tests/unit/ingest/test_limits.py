from ingest.limits import BytesInFlight, RequestsInFlight
from midstream import rate_limiter
from midstream.rate_limiter import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_bounded_in_number() -> None:
    requests = RequestsInFlight(2)
    assert requests.enter()
    assert requests.enter()
    assert not requests.enter()
    assert requests.under_way == 2
    requests.leave()
    assert requests.enter()
    assert not requests.enter()


def test_bytes_are_bounded_exactly() -> None:
    held = BytesInFlight(100)
    assert held.reserve(60)
    assert held.reserve(40)
    assert held.full
    assert not held.reserve(1)
    held.release(40)
    assert not held.full
    assert held.reserve(40)
    held.release(100)


def test_rate_allows_a_burst_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, clock)
    assert [limiter.retry_after_s("a") for _ in range(3)] == [0, 0, 1]
    clock.now += 0.5
    assert [limiter.retry_after_s("a") for _ in range(2)] == [0, 1]
    clock.now += 3600
    assert [limiter.retry_after_s("a") for _ in range(3)] == [0, 0, 1]


def test_rate_below_one_says_how_long_to_wait() -> None:
    clock = Clock()
    limiter = RateLimiter(0.1, clock)
    assert limiter.retry_after_s("a") == 0
    assert limiter.retry_after_s("a") == 10
    clock.now += 4
    assert limiter.retry_after_s("a") == 6
    clock.now += 6
    assert limiter.retry_after_s("a") == 0


def test_waiting_as_long_as_told_is_enough() -> None:
    clock = Clock()
    limiter = RateLimiter(3.0, clock)
    for _ in range(50):
        clock.now += limiter.retry_after_s("a")
        assert limiter.retry_after_s("a") in (0, 1)


def test_credentials_do_not_share_a_bucket() -> None:
    limiter = RateLimiter(1.0, Clock())
    assert limiter.retry_after_s("a") == 0
    assert limiter.retry_after_s("b") == 0
    assert limiter.retry_after_s("a") == 1


def test_no_limit_keeps_nothing() -> None:
    limiter = RateLimiter(0)
    assert {limiter.retry_after_s("a") for _ in range(1000)} == {0}
    assert not limiter._buckets


def test_buckets_are_bounded() -> None:
    limiter = RateLimiter(1.0, Clock())
    for number in range(rate_limiter._MAX_BUCKETS + 50):
        limiter.retry_after_s(str(number))
    assert len(limiter._buckets) == rate_limiter._MAX_BUCKETS
