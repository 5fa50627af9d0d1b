from aiokafka.structs import TopicPartition

from processors.store.accountant import Progress

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
