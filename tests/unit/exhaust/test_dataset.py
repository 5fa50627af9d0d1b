"""What can be declared, and what names a resource."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.exhaust.dataset import (
    COLUMNS,
    D001,
    FILTER_COLUMNS,
    RESOURCE_COLUMNS,
    TAGS,
    Condition,
    Dataset,
    DatasetError,
    condition_sql,
    digest,
    read_declaration,
    resource_head,
    resource_key,
    same_resource,
    to_declaration,
)

HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f901234567"
BY_CHANNEL = Dataset("D002", "channel")


def declaration(**members: Any) -> dict[str, Any]:
    return {"name": "D002", "resource": "tags", **members}


def condition(**members: Any) -> dict[str, Any]:
    return declaration(filter=[members])


class TestReadDeclaration:
    def test_the_least(self) -> None:
        assert read_declaration(declaration()) == Dataset("D002", TAGS, (), (), 0)
        assert read_declaration({"name": "D001", "resource": "tags"}) == D001

    def test_all_of_it(self) -> None:
        found = read_declaration(
            {
                "name": "A.b_c-9",
                "resource": "channel",
                "filter": [{"column": "eid", "in": ["START", "END"]}, {"column": "env", "not_in": [""]}],
                "columns": ["mid", "raw"],
                "retention_days": 400,
            }
        )
        filter_ = (Condition("eid", "in", ("START", "END")), Condition("env", "not_in", ("",)))
        assert found == Dataset("A.b_c-9", "channel", filter_, ("mid", "raw"), 400)

    @pytest.mark.parametrize(
        ("obj", "place"),
        [
            (None, ""),
            ([], ""),
            ("D002", ""),
            ([declaration()], ""),
            ({}, "name"),
            ({"name": "D002"}, "resource"),
            ({"resource": "tags"}, "name"),
            (declaration(colums=[]), "'colums'"),
            (declaration(name=""), "name"),
            (declaration(name=1), "name"),
            (declaration(name="x" * 65), "name"),
            (declaration(name=".."), "name"),
            (declaration(name="a/b"), "name"),
            (declaration(name="a\n"), "name"),
            (declaration(name="-a"), "name"),
            (declaration(name="ä"), "name"),
            (declaration(name=None), "name"),
            (declaration(resource="tag"), "resource"),
            (declaration(resource="location"), "resource"),
            (declaration(resource="1=1 OR channel"), "resource"),
            (declaration(resource=None), "resource"),
            (declaration(resource=["tags"]), "resource"),
            (declaration(filter={}), "filter"),
            (declaration(filter=None), "filter"),
            (declaration(filter=[{"column": "eid", "in": ["a"]}] * 17), "filter"),
            (declaration(filter=["eid"]), "filter[0]"),
            (condition(column="user", **{"in": ["a"]}), "filter[0].column"),
            (condition(column="flags", **{"in": ["a"]}), "filter[0].column"),
            (condition(column="raw", **{"in": ["a"]}), "filter[0].column"),
            (condition(column=["eid"], **{"in": ["a"]}), "filter[0].column"),
            (condition(**{"in": ["a"]}), "filter[0].column"),
            (condition(column="eid"), "filter[0]"),
            (condition(column="eid", not_in=["b"], **{"in": ["a"]}), "filter[0]"),
            (condition(column="eid", like=["a"]), "filter[0].'like'"),
            (condition(column="eid", **{"in": []}), "filter[0].in"),
            (condition(column="eid", **{"in": "START"}), "filter[0].in"),
            (condition(column="eid", not_in=["a"] * 257), "filter[0].not_in"),
            (condition(column="eid", not_in=["a", 1]), "filter[0].not_in[1]"),
            (condition(column="eid", not_in=["a" * 257]), "filter[0].not_in[0]"),
            (condition(column="eid", not_in=["\0"]), "filter[0].not_in[0]"),
            (condition(column="eid", not_in=["\ud800"]), "filter[0].not_in[0]"),
            (condition(column="eid", not_in=["a\tb"]), "filter[0].not_in[0]"),
            (condition(column="eid", **{"in": [f"{number:017}" for number in range(241)]}), "filter"),
            (condition(column="eid", **{"in": ["ä" * 256] * 9}), "filter"),
            (declaration(columns="mid"), "columns"),
            (declaration(columns=["mid", "user"]), "columns[1]"),
            (declaration(columns=["device"]), "columns[0]"),
            (declaration(columns=["content"]), "columns[0]"),
            (declaration(columns=["location"]), "columns[0]"),
            (declaration(columns=["flags"]), "columns[0]"),
            (declaration(columns=["stored_at"]), "columns[0]"),
            (declaration(columns=["*"]), "columns[0]"),
            (declaration(columns=[1]), "columns[0]"),
            (declaration(columns=["mid", "eid", "mid"]), "columns[2]"),
            (declaration(retention_days=-1), "retention_days"),
            (declaration(retention_days=36_501), "retention_days"),
            (declaration(retention_days=1.0), "retention_days"),
            (declaration(retention_days=True), "retention_days"),
            (declaration(retention_days="1"), "retention_days"),
            (declaration(retention_days=None), "retention_days"),
        ],
    )
    def test_what_cannot_be_is_refused_with_its_place(self, obj: object, place: str) -> None:
        with pytest.raises(DatasetError) as caught:
            read_declaration(obj)
        assert caught.value.place == place
        assert str(caught.value).startswith(f"{place}: " if place else "is ")

    def test_a_long_unknown_member_makes_no_long_message(self) -> None:
        with pytest.raises(DatasetError) as caught:
            read_declaration(declaration(**{"\x1b" * 100_000: 1}))
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()

    @given(
        st.builds(
            Dataset,
            st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
            st.sampled_from((TAGS, *RESOURCE_COLUMNS)),
            st.lists(
                st.builds(
                    Condition,
                    st.sampled_from(FILTER_COLUMNS),
                    st.sampled_from(("in", "not_in")),
                    st.lists(st.text(max_size=8).filter(str.isprintable), min_size=1, max_size=7).map(tuple),
                ),
                max_size=16,
            ).map(tuple),
            st.lists(st.sampled_from(COLUMNS), unique=True).map(tuple),
            st.integers(0, 36_500),
        )
    )
    def test_a_dataset_is_its_declaration(self, dataset: Dataset) -> None:
        told = to_declaration(dataset)
        assert read_declaration(json.loads(json.dumps(told))) == dataset
        condition_sql(dataset, HASH)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(list(declaration())), inner),
        )
    )
    def test_any_json_is_taken_or_refused(self, obj: object) -> None:
        try:
            found = read_declaration(obj)
        except DatasetError:
            return
        assert read_declaration(to_declaration(found)) == found


class TestDigest:
    WHOLE = Dataset("A", "channel", (Condition("eid", "in", ("a", "b")), Condition("env", "not_in", ("c",))), ("mid",))

    def test_it_is_the_same_whatever_does_not_change_a_byte(self) -> None:
        for other in (
            replace(self.WHOLE, name="B"),
            replace(self.WHOLE, retention_days=9),
            replace(self.WHOLE, filter=self.WHOLE.filter[::-1]),
            replace(self.WHOLE, filter=(Condition("eid", "in", ("b", "a", "b")), self.WHOLE.filter[1])),
        ):
            assert digest(other) == digest(self.WHOLE)

    def test_it_is_another_whatever_changes_one(self) -> None:
        others = [
            replace(self.WHOLE, resource="eid"),
            replace(self.WHOLE, columns=()),
            replace(self.WHOLE, columns=("mid", "eid")),
            replace(self.WHOLE, columns=("eid", "mid")),
            replace(self.WHOLE, filter=()),
            replace(self.WHOLE, filter=self.WHOLE.filter[:1]),
            replace(self.WHOLE, filter=(Condition("eid", "not_in", ("a", "b")), self.WHOLE.filter[1])),
            replace(self.WHOLE, filter=(Condition("env", "in", ("a", "b")), self.WHOLE.filter[1])),
            replace(self.WHOLE, filter=(Condition("eid", "in", ("a,b",)), self.WHOLE.filter[1])),
            D001,
        ]
        assert len({digest(one) for one in [self.WHOLE, *others]}) == len(others) + 1

    def test_it_stays_from_release_to_release(self) -> None:
        """Files of closed days are named by it."""
        assert digest(D001) == "b2516d3c695e50abbe672f4eab91bc07560063a5c3c0ddc77ee90973cdd4d1a4"
        assert digest(self.WHOLE) == "79c132ed33917765db19ec60484fb6180700217ae2e0f3c148c15d320d43c684"


class TestResourceKey:
    @pytest.mark.parametrize("text", [HASH, HASH.upper(), HASH[:20] + HASH[20:].upper()])
    def test_a_hash(self, text: str) -> None:
        assert resource_key(D001, text) == HASH
        assert resource_key(D001, text[:32]) == HASH[:32]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            HASH[:31],
            HASH[:33],
            HASH[:39],
            HASH + "0",
            HASH[:-1] + "g",
            HASH + "\n",
            HASH[:39] + "\n",
            HASH[:31] + "\n",
            " " + HASH[:39],
            HASH[:39] + "\0",
            "\uff10" + HASH[1:],  # a full-width digit
            "../" + HASH[:29],
            "0x" + HASH[:30],
            "0" * 1_000_000,
        ],
    )
    def test_no_hash(self, text: str) -> None:
        assert resource_key(D001, text) is None

    @pytest.mark.parametrize("text", ["a", "in.ekstep", "b00bc992ef25", "_x", "a.b:c@d+e=f~g-h", "a" * 128, "A..b"])
    def test_a_word(self, text: str) -> None:
        assert resource_key(BY_CHANNEL, text) == text

    @pytest.mark.parametrize(
        "text",
        ["", ".", "..", "../x", "a/b", "a\\b", "a b", "a\0", "a\n", "-a", "a" * 129, "ä", "a%2f", "'", "a?", "*"],
    )
    def test_no_word(self, text: str) -> None:
        assert resource_key(BY_CHANNEL, text) is None


class TestSameResource:
    def test_of_tags(self) -> None:
        assert same_resource(TAGS, HASH, HASH)
        assert same_resource(TAGS, HASH, HASH[:32])
        assert same_resource(TAGS, HASH[:32], HASH)
        assert not same_resource(TAGS, HASH, HASH[:32] + "0" * 8)
        assert not same_resource(TAGS, HASH, "0" * 32)
        assert not same_resource(TAGS, HASH[:32], "0" * 32)

    def test_of_a_column(self) -> None:
        assert same_resource("channel", HASH, HASH)
        assert not same_resource("channel", HASH, HASH[:32])

    @given(st.text("abc", min_size=1, max_size=40), st.text("abc", min_size=1, max_size=40))
    def test_the_same_have_one_head(self, one: str, other: str) -> None:
        for rule in (TAGS, "channel"):
            if same_resource(rule, one, other):
                assert resource_head(one) == resource_head(other)
