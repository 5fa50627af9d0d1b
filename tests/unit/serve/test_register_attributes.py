"""What a registration is made upon, and what of it another process's row lacks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.register.attributes import (
    NO_ROW,
    Attributes,
    Published,
    Row,
    base_of,
    encode_location,
    location_of,
    read_attributes,
    write_attributes,
)

some = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2", b"3"]))


def published(before: Attributes, said: Attributes, version: int) -> Published:
    return Published(before, said, Row(before | said, version), 0.0)


def test_attributes_stay_as_they_were_written() -> None:
    text = '{"n":1.10,"big":123456789012345678901234567890,"o":{"b":1,"a":"\\u00fc"},"é":null}'
    assert write_attributes(read_attributes(text)).decode() == text


def test_the_stored_row_counts_when_nothing_is_on_its_way() -> None:
    row = Row({"a": b"1"}, 5)
    assert base_of(row, None) == (row, {}, True)
    assert base_of(NO_ROW, None) == (NO_ROW, {}, True)


def test_a_row_on_its_way_counts_until_clickhouse_has_it() -> None:
    ours = published({"a": b"1"}, {"b": b"2"}, 7)
    assert base_of(Row({"a": b"1"}, 5), ours) == (ours.row, {}, False)
    assert base_of(NO_ROW, ours) == (ours.row, {}, False)
    assert base_of(ours.row, ours) == (ours.row, {}, True)


def test_what_anothers_row_lacks_is_put_back() -> None:
    ours = published({"a": b"1", "c": b"0"}, {"b": b"2", "c": b"3"}, 7)
    other = Row({"a": b"9", "c": b"0", "d": b"4"}, 8)
    base = base_of(other, ours)
    assert base.lost == {"b": b"2", "c": b"3"}
    assert base.row == Row({"a": b"9", "b": b"2", "c": b"3", "d": b"4"}, 8)


def test_a_row_of_the_same_version_can_be_anothers() -> None:
    ours = published({}, {"b": b"2"}, 7)
    assert base_of(Row({"a": b"1"}, 7), ours).lost == {"b": b"2"}


def test_what_another_changed_itself_stays() -> None:
    ours = published({"a": b"1"}, {"a": b"2"}, 7)
    assert base_of(Row({"a": b"3"}, 8), ours).lost == {}


def test_a_deleted_device_stays_so() -> None:
    ours = published({}, {"a": b"2"}, 7)
    gone = Row({}, 8, deleted=True)
    assert base_of(gone, ours) == (gone, {}, True)


@given(before=some, ours=some, theirs=some)
def test_two_processes_that_did_not_know_of_each_other_come_to_one_row(
    before: Attributes, ours: Attributes, theirs: Attributes
) -> None:
    """Both publish upon ``before``; the one of the higher version wins, and the other puts back its own."""
    first, second = published(before, ours, 7), published(before, theirs, 8)
    base = base_of(second.row, first)
    healed = Row(base.row.attributes, 9)
    for name, value in (ours | theirs).items():
        if name not in ours or name not in theirs or ours[name] == value:
            assert healed.attributes[name] == value
        else:
            assert healed.attributes[name] in (ours[name], theirs[name])
    assert set(healed.attributes) == set(before | ours | theirs)
    if base.lost:
        assert base_of(healed, second).lost == {}, "the two would go on for ever"


def test_a_location_has_both_keys() -> None:
    assert encode_location("Goa", "") == b'{"state":"Goa","district":""}'
    assert location_of({"x": b'{"state":"Goa"}'}, "x") == {"state": "Goa", "district": ""}
    assert location_of({"x": b'{"district":"North","state":5}'}, "x") == {"state": "", "district": "North"}


def test_what_is_no_location_is_none() -> None:
    for text in (b"null", b"[]", b'"Goa"', b"{}", b'{"state":"","district":""}', b'{"state":{"name":"Goa"}}', b"{"):
        assert location_of({"x": text}, "x") is None
    assert location_of({}, "x") is None
