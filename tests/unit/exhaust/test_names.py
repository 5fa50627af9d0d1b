from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.exhaust.names import (
    FORMATS,
    Format,
    HourName,
    OuterName,
    day_name,
    hour_name,
    outer_name,
    read_day_name,
    read_hour_name,
    read_outer_name,
)

DAY = date(2026, 11, 20)


def test_the_names_that_clients_know() -> None:
    assert outer_name(DAY, date(2026, 11, 22), 7) == "dataset-2026-11-20-to-2026-11-22-7.zip"
    assert day_name(DAY) == "aggregated-2026-11-20.gz"
    assert hour_name(DAY, 5, 1795150800123) == "data-exhaust-05.log-2026-11-20-1795150800123.gz"
    assert hour_name(DAY, 5, 1795150800123, "csv") == "data-exhaust-05.csv-2026-11-20-1795150800123.gz"
    assert hour_name(DAY, 23, 1795150800123, "parquet") == "data-exhaust-23-2026-11-20-1795150800123.parquet"


@given(st.dates(), st.integers(0, 23), st.integers(0, 10**15), st.sampled_from(FORMATS))
def test_an_hours_name_is_read(day: date, hour: int, epoch_ms: int, kind: Format) -> None:
    assert read_hour_name(hour_name(day, hour, epoch_ms, kind)) == HourName(day, hour, epoch_ms, kind)


@given(st.dates(), st.dates(), st.integers(0))
def test_a_days_and_a_downloads_names_are_read(first: date, last: date, number: int) -> None:
    assert read_day_name(day_name(first)) == first
    found = read_outer_name(outer_name(first, last, number))
    assert found == (OuterName(first, last, number) if first <= last else None)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "aggregated-2026-11-20.gz ",
        "aggregated-2026-11-20.gz\n",
        "aggregated-2026-02-30.gz",
        "aggregated-2026-11-2.gz",
        "aggregated-٢٠٢٦-11-20.gz",
        "aggregated-20261120.gz",
        "../aggregated-2026-11-20.gz",
        "aggregated-2026-11-20.zip",
    ],
)
def test_no_days_name(name: str) -> None:
    assert read_day_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "data-exhaust-24.log-2026-11-20-1.gz",
        "data-exhaust-5.log-2026-11-20-1.gz",
        "data-exhaust-05.log-2026-11-31-1.gz",
        "data-exhaust-05.log-2026-11-20-01.gz",
        "data-exhaust-05.log-2026-11-20--1.gz",
        "data-exhaust-05.log-2026-11-20-12345678901234567.gz",
        "data-exhaust-05.log-2026-11-20-1.parquet",
        "data-exhaust-05-2026-11-20-1.gz",
        "data-exhaust-05.txt-2026-11-20-1.gz",
        "data-exhaust-05.log-2026-11-20-1.gz/",
        "x/data-exhaust-05.log-2026-11-20-1.gz",
    ],
)
def test_no_hours_name(name: str) -> None:
    assert read_hour_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "dataset-2026-11-22-to-2026-11-20-7.zip",
        "dataset-2026-11-20-to-2026-11-31-7.zip",
        "dataset-2026-11-20-to-2026-11-22-07.zip",
        "dataset-2026-11-20-to-2026-11-22.zip",
        "dataset-2026-11-20-to-2026-11-22-7.zip.part",
    ],
)
def test_no_downloads_name(name: str) -> None:
    assert read_outer_name(name) is None
