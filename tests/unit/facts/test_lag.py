"""How old the oldest record is, asked for by moments only."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Mapping

from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from serve.facts.lag import LONGEST_S, age_s, behind

NOW_MS = 1_800_000_000_000
A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Topic:
    """Times (epoch ms) at which the records of each partition were appended."""

    def __init__(self, times: Mapping[TopicPartition, list[int]]) -> None:
        self.times = times
        self.asked = 0

    async def find(self, moments: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int | None]:
        self.asked += 1
        places = {tp: bisect_left(self.times[tp], moment) for tp, moment in moments.items()}
        return {tp: place if place < len(self.times[tp]) else None for tp, place in places.items()}


def age(topic: Topic, oldest: Mapping[TopicPartition, int]) -> float:
    return asyncio.run(age_s(topic.find, oldest, NOW_MS))


def test_behind_is_where_the_next_record_is_that_there_still_is() -> None:
    c, d = TopicPartition("t", 2), TopicPartition("t", 3)
    ends = {A: 10, B: 10, c: 10, d: 0}
    firsts = {A: 0, B: 7, c: 0, d: 0}
    assert behind(ends, firsts, {A: 4, B: 2, c: 10}) == {A: 4, B: 7}
    assert behind(ends, firsts, {}) == {A: 0, B: 7, c: 0}


def test_nothing_is_behind() -> None:
    topic = Topic({})
    assert age(topic, {}) == 0
    assert topic.asked == 0


ages = st.lists(st.integers(0, 40 * 86_400_000), min_size=1, max_size=50)


@given(ages, ages, st.data())
def test_it_is_an_eighth_or_a_second_too_little_at_the_most(a: list[int], b: list[int], data: st.DataObject) -> None:
    times = {tp: sorted(NOW_MS - one for one in ones) for tp, ones in ((A, a), (B, b))}
    oldest = {tp: data.draw(st.integers(0, len(ones) - 1)) for tp, ones in times.items()}
    topic = Topic(times)
    found = age(topic, oldest)
    true = max(NOW_MS - times[tp][offset] for tp, offset in oldest.items()) / 1000
    assert found <= true <= found + max(found / 8, 1) + 0.001
    assert topic.asked <= 30


def test_a_moment_behind_costs_one_question() -> None:
    topic = Topic({A: [NOW_MS - 900, NOW_MS - 100]})
    assert age(topic, {A: 0}) == 0
    assert topic.asked == 1


def test_there_is_an_end_to_it() -> None:
    assert age(Topic({A: [0]}), {A: 0}) == LONGEST_S
