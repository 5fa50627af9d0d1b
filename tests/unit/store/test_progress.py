from aiokafka.structs import TopicPartition

from processors.store.accountant import Progress, Settled

RAW = TopicPartition("telemetry.raw", 0)
VALID = TopicPartition("telemetry.valid", 0)
DEAD = TopicPartition("telemetry.dead", 0)


def test_a_batch_is_through_when_what_validate_made_of_it_has_been_stored() -> None:
    progress = Progress()
    assert progress.observe({RAW: 10}, {VALID: 3, DEAD: 1}, {VALID: 2, DEAD: 1}, {RAW: 10}) == {}
    # More has been validated since; the first ten are through once the three and the one are stored.
    assert progress.observe({RAW: 20}, {VALID: 6, DEAD: 1}, {VALID: 3, DEAD: 1}, {RAW: 20}) == {RAW: 10}
    assert progress.observe({RAW: 20}, {VALID: 6, DEAD: 1}, {VALID: 6, DEAD: 1}, {RAW: 20}) == {RAW: 20}


def test_dead_letters_hold_back_as_events_do() -> None:
    progress = Progress()
    assert progress.observe({RAW: 5}, {VALID: 0, DEAD: 2}, {DEAD: 1}, {RAW: 5}) == {}
    assert progress.observe({RAW: 5}, {VALID: 0, DEAD: 2}, {DEAD: 2}, {RAW: 5}) == {RAW: 5}


def test_a_batch_without_its_own_row_is_not_through() -> None:
    progress = Progress()
    assert progress.observe({RAW: 5}, {VALID: 1}, {VALID: 1}, {RAW: 3}) == {RAW: 3}
    assert progress.observe({RAW: 5}, {VALID: 1}, {VALID: 1}, {}) == {RAW: 0}


def test_nothing_received_is_nothing_owed() -> None:
    assert Progress().observe({}, {VALID: 0, DEAD: 0}, {}, {}) == {}


def test_a_long_backlog_keeps_its_oldest_step() -> None:
    progress = Progress()
    for number in range(3_000):
        assert progress.observe({RAW: number}, {VALID: number + 1}, {VALID: 0}, {RAW: number}) == {}
    assert progress.observe({RAW: 3_000}, {VALID: 3_001}, {VALID: 1}, {RAW: 3_000}) == {RAW: 0}
    assert len(progress._snapshots) <= 601


def test_a_minute_is_asked_for_until_nothing_in_it_is_in_flight() -> None:
    settled = Settled(0)
    settled.settle([(0, 0, 0), (60, 5, 0), (120, 0, 0)], 10_000)
    assert (settled.since_s, settled.unaccounted) == (60, 0)
    settled.settle([(60, 0, 2), (120, 0, 0)], 10_000)
    assert (settled.since_s, settled.unaccounted) == (180, 2)
    settled.settle([], 10_000)
    assert settled.unaccounted == 2


def test_a_surplus_does_not_hide_a_loss() -> None:
    settled = Settled(0)
    settled.settle([(0, 0, 7), (60, 0, -7)], 10_000)
    assert settled.unaccounted == 14


def test_a_young_minute_stays_open() -> None:
    settled = Settled(0)
    settled.settle([(9_900, 0, 3)], 10_000)
    assert (settled.since_s, settled.unaccounted) == (0, 3)
    settled.settle([(9_900, 0, 0)], 10_000)
    assert settled.unaccounted == 0
