"""How long partitions stood still, by the moments at which they got something."""

from __future__ import annotations

from bench.flow import Pause, longest_gap, pause

STEADY = list(range(0, 10_000, 1_000))


def test_the_longest_gap_is_of_any_partition_and_counts_the_edges() -> None:
    assert longest_gap({0: STEADY, 1: STEADY}, 0, 10_000) == 1_000
    assert longest_gap({0: STEADY, 1: [0, 1_000, 4_500, 5_000]}, 0, 6_000) == 3_500
    assert longest_gap({0: STEADY, 1: []}, 2_000, 9_000) == 7_000


def test_who_flows_as_before_has_not_paused() -> None:
    assert pause({0: STEADY, 1: STEADY}, 1_000, 5_000, 9_500) == Pause(longest_ms=1_000, all_flow_ms=0, paused=0)


def test_a_pause_begins_with_what_was_stored_before_the_change() -> None:
    moments = {0: STEADY, 1: [3_000, 4_000, 4_900, 9_000, 9_200]}
    assert pause(moments, 1_000, 5_000, 9_500) == Pause(longest_ms=4_100, all_flow_ms=4_000, paused=1)


def test_a_second_pause_after_the_change_counts_too() -> None:
    # Those of the dead worker stand still at once, the others when their group is made anew.
    moments = {0: [4_000, 9_000, 9_500], 1: [4_500, 5_500, 6_000, 9_400, 9_600]}
    assert pause(moments, 1_000, 5_000, 9_700) == Pause(longest_ms=5_000, all_flow_ms=4_400, paused=2)


def test_who_gets_nothing_any_more_pauses_to_the_end() -> None:
    assert pause({0: STEADY, 1: [4_000]}, 1_000, 5_000, 9_500) == Pause(5_500, 4_500, 1)


def test_what_came_before_the_change_is_not_looked_at() -> None:
    assert pause({0: [0, 4_000, 4_500, 5_500, 6_000]}, 1_000, 5_000, 6_500) == Pause(1_000, 0, 0)
