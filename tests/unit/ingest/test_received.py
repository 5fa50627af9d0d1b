from ingest.received import Received


class Clock:
    def __init__(self) -> None:
        self.ms = 10_000

    def __call__(self) -> int:
        return self.ms * 1_000_000


def test_low_is_the_oldest_on_its_way_or_in_the_spool_else_now() -> None:
    clock = Clock()
    received = Received(clock)
    assert received.low_ms(None) == 10_000
    assert received.low_ms(9_000) == 9_000
    first, first_ms = received.enter()
    clock.ms += 5
    second, second_ms = received.enter()
    clock.ms += 5
    assert (first_ms, second_ms) == (10_000, 10_005)
    assert received.low_ms(None) == 10_000
    assert received.low_ms(10_002) == 10_000
    received.leave(first)
    assert received.low_ms(None) == 10_005
    assert received.low_ms(10_002) == 10_002
    assert not received.empty
    received.leave(second)
    assert received.low_ms(None) == 10_010
    assert received.empty


def test_nothing_is_received_before_a_low_that_was_told() -> None:
    clock = Clock()
    received = Received(clock)
    told = received.low_ms(None)
    clock.ms -= 3_600_000  # set back by an hour
    number, moment = received.enter()
    assert moment == told
    received.leave(number)
    assert received.low_ms(None) == told
    clock.ms += 3_600_001
    assert received.enter()[1] == told + 1
