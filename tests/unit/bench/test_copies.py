"""The judgement over looks at objects that are being corrected."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.copies import Judge, Seen


def judged(looks: Sequence[Seen | None]) -> Judge:
    judge = Judge()
    for seen in looks:
        judge.look({} if seen is None else {"u": seen})
    return judge


def test_an_object_that_is_corrected_at_one_moment_is_right() -> None:
    judge = judged([Seen(10, 10, 0), Seen(12, 10, 2), Seen(13, 11, 2), Seen(14, 0, 14), Seen(15, 0, 15)])
    assert judge.wrong == {}
    assert judge.corrected == {"u"}
    assert (judge.looks, judge.both_before) == (5, 2)


@pytest.mark.parametrize(
    ("looks", "wrong"),
    [
        ([Seen(10, 10, 0), Seen(10, 6, 4)], "half corrected"),
        ([Seen(10, 10, 0), Seen(12, 9, 3)], "half corrected"),
        ([Seen(10, 10, 0), Seen(10, 0, 10), Seen(11, 1, 10)], "the old copy again"),
        ([Seen(10, 10, 0), Seen(10, 0, 10), Seen(10, 10, 0)], "the old copy again"),
        ([Seen(10, 10, 0), Seen(9, 9, 0)], "fewer events than before"),
        ([Seen(10, 10, 0), None], "events that were gone"),
        ([Seen(10, 10, 0, 1)], "a copy beside another's location"),
    ],
)
def test_what_is_wrong_is_named(looks: list[Seen | None], wrong: str) -> None:
    assert judged(looks).wrong.get(wrong) == 1


def test_an_object_whose_old_copy_was_never_seen_is_not_corrected() -> None:
    assert judged([Seen(1, 0, 1), Seen(2, 0, 2)]).corrected == set()


def test_every_object_is_judged_by_itself() -> None:
    judge = Judge()
    judge.look({"u": Seen(10, 10, 0), "v": Seen(10, 10, 0)})
    judge.look({"u": Seen(10, 0, 10), "v": Seen(10, 10, 0)})
    judge.look({"u": Seen(10, 0, 10), "v": Seen(10, 0, 10)})
    assert judge.wrong == {}
    assert judge.corrected == {"u", "v"}
