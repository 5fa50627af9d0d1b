"""The folder of built days."""

from __future__ import annotations

import os
import time
from datetime import date, timedelta
from pathlib import Path

from midstream.exhaust.manifest import DayFacts
from midstream.exhaust.variant import DayKey, Variant
from serve.exhaust.days.keeper import clear, tidy
from serve.exhaust.days.shelf import DATA, FACTS, LOCK, PART, Place, slot

DAY = date(2026, 1, 1)


def keep(folder: Path, number: int, size: int, age_s: float) -> Place:
    place = Place(folder, DayKey("D001", "d", "r", Variant(), DAY + timedelta(days=number)))
    with place.build() as ours:
        assert ours
        place.path(PART).write_bytes(b"x" * size)
        place.keep(DayFacts(DAY + timedelta(days=number), 0, size, "0" * 64, 0))
    moment = time.time() - age_s
    os.utime(place.path(FACTS), (moment, moment))
    return place


def test_those_not_asked_for_longest_go_first(tmp_path: Path) -> None:
    places = [keep(tmp_path, number, 100, age_s=number * 60) for number in range(5)]
    assert tidy(tmp_path, 250) == (200, 2)
    assert [place.built() is not None for place in places] == [True, True, False, False, False]
    assert len(list(tmp_path.glob(f"??/*/*{DATA}"))) == 2


def test_one_that_is_used_stays(tmp_path: Path) -> None:
    places = [keep(tmp_path, number, 100, age_s=number * 60) for number in range(3)]
    places[2].touch()
    tidy(tmp_path, 150)
    assert [place.built() is not None for place in places] == [False, False, True]


def test_what_killed_builders_left_goes_after_a_day(tmp_path: Path) -> None:
    kept = keep(tmp_path, 0, 10, 0)
    left = [kept.path(suffix) for suffix in (PART, LOCK)] + [kept.folder / f"2026-02-02.0{DATA}"]
    for path in left:
        path.write_bytes(b"x")
    clear(tmp_path)
    assert all(path.exists() for path in left)
    for path in left:
        os.utime(path, (0, 0))
    clear(tmp_path)
    assert not any(path.exists() for path in left)
    assert kept.built() is not None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert tidy(tmp_path / "none", 10) == (0, 0)


def test_a_builder_has_its_day_alone(tmp_path: Path) -> None:
    place = Place(tmp_path, DayKey("D001", "d", "r", Variant(), DAY))
    with place.build() as ours, place.build() as others:
        assert (ours, others) == (True, False)
        assert place.is_being_built()
    assert not place.is_being_built()
    with place.build() as ours:
        assert ours


def test_whether_somebody_waits(tmp_path: Path) -> None:
    place = Place(tmp_path, DayKey("D001", "d", "r", Variant(), DAY))
    place.folder.mkdir(parents=True)
    assert not place.is_wanted()
    one, other = place.wait(), place.wait()
    assert place.is_wanted()
    os.close(one)
    assert place.is_wanted()
    os.close(other)
    assert not place.is_wanted()


def test_slots_are_bounded(tmp_path: Path) -> None:
    with slot(tmp_path, 2) as first, slot(tmp_path, 2) as second, slot(tmp_path, 2) as third:
        assert (first, second, third) == (True, True, False)
    with slot(tmp_path, 1) as again:
        assert again


def test_a_day_with_other_facts_than_bytes_is_not_there(tmp_path: Path) -> None:
    place = keep(tmp_path, 0, 100, 0)
    place.path(DATA).write_bytes(b"short")
    assert place.built() is None
