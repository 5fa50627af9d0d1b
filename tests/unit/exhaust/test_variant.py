"""Which bytes a request names."""

from dataclasses import replace
from datetime import date

import pytest

from midstream.exhaust.variant import DayKey, Variant, VariantError, download_number, etag, read_variant, variant_from

KEY = DayKey("D001", "d" * 64, "a" * 40, Variant(), date(2026, 1, 1))


def test_the_order_of_values_does_not_count() -> None:
    assert read_variant("csv", ["B", "A", "B"], ["y", "x"]) == Variant("csv", ("A", "B"), ("x", "y"))


def test_a_variant_is_the_same_after_json() -> None:
    variant = Variant("parquet", ("A",), ("b", "ñ"))
    assert variant_from(variant.as_dict()) == variant


@pytest.mark.parametrize(
    ("form", "eids", "channels", "word"),
    [
        ("xml", [], [], "format"),
        ("JSONL", [], [], "format"),
        ("", [], [], "format"),
        ("csv", [""], [], "eid"),
        ("csv", ["a\x00"], [], "eid"),
        ("csv", [], ["x" * 257], "channel"),
        ("csv", [], [str(number) for number in range(101)], "channel"),
    ],
)
def test_variants_that_cannot_be(form: str, eids: list[str], channels: list[str], word: str) -> None:
    with pytest.raises(VariantError, match=word):
        read_variant(form, eids, channels)


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, dataset="D002"),
        replace(KEY, digest="e" * 64),
        replace(KEY, resource="b" * 40),
        replace(KEY, variant=Variant("csv")),
        replace(KEY, variant=Variant(eids=("A",))),
        replace(KEY, variant=Variant(channels=("A",))),
        replace(KEY, day=date(2026, 1, 2)),
        replace(KEY, revision=1),
    ],
)
def test_whatever_changes_the_bytes_changes_the_tag(other: DayKey) -> None:
    assert etag([KEY]) != etag([other])
    assert etag([KEY, KEY]) != etag([KEY])
    assert download_number([KEY]) != download_number([other])


def test_the_tag_stays_what_it_was() -> None:
    """A client may go on with a download after an upgrade."""
    assert etag([KEY]) == '"bbc0a514f0a54c8802667e436c5156406c9fde0b"'
    assert KEY.series == "3b1f87a221fc0c9be49044cdfcade43acdebf77d"


def test_days_of_the_same_request_share_a_series() -> None:
    assert KEY.series == replace(KEY, day=date(2027, 1, 1), revision=4).series
