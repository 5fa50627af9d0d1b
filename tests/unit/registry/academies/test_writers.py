"""What a process that died left unpublished is published by one other."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from midstream.registry.academies.writers import Writers

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def writers(engine: Engine) -> Writers:
    return Writers(engine)


def test_a_life(writers: Writers) -> None:
    id_ = str(uuid4())
    writers.begin(id_, AT)
    assert writers.abandoned(AT) == []
    assert writers.progress(id_, 2**62, AT + SECOND)
    assert writers.abandoned(AT + 2 * SECOND) == [(id_, AT, 2**62, AT + SECOND)]
    writers.end(id_)
    assert writers.abandoned(AT + 2 * SECOND) == []
    assert not writers.progress(id_, 1, AT)
    writers.end(id_)


def test_one_that_died_is_taken_over_once(writers: Writers) -> None:
    dead, alive = str(uuid4()), str(uuid4())
    writers.begin(dead, AT)
    writers.begin(alive, AT + 9 * SECOND)
    (found,) = writers.abandoned(AT + 5 * SECOND)
    assert found.id == dead
    assert writers.claim(found.id, found.seen_at, AT + 10 * SECOND)
    assert not writers.claim(found.id, found.seen_at, AT + 10 * SECOND)
    assert writers.abandoned(AT + 5 * SECOND) == []


def test_one_that_was_only_frozen_learns_that_it_was_taken_over(writers: Writers) -> None:
    id_ = str(uuid4())
    writers.begin(id_, AT)
    assert writers.claim(id_, AT, AT + SECOND)
    assert not writers.progress(id_, 5, AT + 2 * SECOND)
    assert writers.progress(id_, 7, AT + 3 * SECOND, claimed=True)
    assert writers.abandoned(AT + 9 * SECOND) == [(id_, AT, 7, AT + 3 * SECOND)]


def test_one_that_has_spoken_since_is_not_taken_over(writers: Writers) -> None:
    id_ = str(uuid4())
    writers.begin(id_, AT)
    (found,) = writers.abandoned(AT + SECOND)
    assert writers.progress(id_, 1, AT + SECOND)
    assert not writers.claim(id_, found.seen_at, AT + SECOND)
    assert writers.progress(id_, 2, AT + 2 * SECOND)
    assert not writers.progress(id_, 3, AT + 2 * SECOND, claimed=True)


def test_who_takes_over_and_dies_is_taken_over(writers: Writers) -> None:
    id_ = str(uuid4())
    writers.begin(id_, AT)
    assert writers.claim(id_, AT, AT + SECOND)
    (found,) = writers.abandoned(AT + 2 * SECOND)
    assert writers.claim(id_, found.seen_at, AT + 3 * SECOND)


def test_of_many_at_once_one_takes_over(writers: Writers) -> None:
    id_ = str(uuid4())
    writers.begin(id_, AT)
    together = threading.Barrier(6)
    taken: list[bool] = []

    def claim(number: int) -> None:
        together.wait()
        taken.append(writers.claim(id_, AT, AT + number * SECOND))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 5 + [True]
