import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.pseudonymise import pseudonymise, pseudonymise_bytes, pseudonymise_text

ID = "user-00017-9f8e"
NAME = "erased-0123456789abcdef01234567"


def event(id_: str, **fields: Any) -> dict[str, Any]:
    return {
        "eid": "INTERACT",
        "ver": "3.0",
        "mid": "INTERACT:1",
        "actor": {"type": "User", "id": id_},
        "context": {"channel": "c", "cdata": [{"id": "s", "type": "Session"}, {"id": id_, "type": "user"}]},
        "object": {"id": id_, "type": "USER"},
        "edata": {},
        **fields,
    }


@pytest.mark.parametrize("id_", [ID, "u1", "u", 'a"b', "a\\b", "ü/1", "語" * 9, "😀😀", "\n\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_the_named_places_are_replaced_whatever_the_id(id_: str, ascii_only: bool) -> None:
    text = json.dumps(event(id_), ensure_ascii=ascii_only)
    assert json.loads(pseudonymise(text, id_, NAME)) == event(NAME)
    assert json.loads(pseudonymise(text.encode(), id_, NAME)) == event(NAME)


def test_a_short_id_is_replaced_in_the_named_places_alone() -> None:
    value = event("u1", edata={"id": "u1", "of": ["u1"]}, tags=["u1"])
    value["object"]["type"] = "Content"
    value["context"]["cdata"] += [{"id": "u1", "type": "Session"}, {"type": "User", "id": "u1", "l": [{"id": "u1"}]}]
    value["context"]["id"] = value["context"]["did"] = "u1"
    expected = json.loads(json.dumps(value))
    expected["actor"]["id"] = expected["context"]["cdata"][1]["id"] = expected["context"]["cdata"][3]["id"] = NAME
    assert json.loads(pseudonymise(json.dumps(value), "u1", NAME)) == expected


def test_a_long_id_is_replaced_in_every_string_and_key_but_those_by_which_events_are_known() -> None:
    value = {
        **event(ID),
        "eid": ID,
        "ver": ID,
        "mid": f"INTERACT:{ID}",
        "tags": [ID, f"x-{ID}-{ID}"],
        "edata": {ID: 1, f"of {ID}": {"mid": ID}, "uri": f"/profile/{ID}?x=1", "other": "user-00017"},
    }
    expected = json.loads(json.dumps(value).replace(ID, NAME))
    expected |= {"eid": ID, "ver": ID, "mid": f"INTERACT:{ID}"}
    assert json.loads(pseudonymise(json.dumps(value), ID, NAME)) == expected


def test_the_type_may_stand_after_the_id() -> None:
    text = '{"object":{"id":"u1","type":"User"},"context":{"cdata":[{"id":"u1","type":"User"}]}}'
    assert pseudonymise(text, "u1", "P") == text.replace('"u1"', '"P"')


def test_numbers_spacing_and_doubled_keys_stay_as_they_were_written() -> None:
    text = '{ "a" : 1.0,\n"b":1e400, "c":100000000000000000000001, "a":-0.10, "actor":{"id":"12345678"}, "n":12345678 }'
    assert pseudonymise(text, "12345678", "P") == text.replace('"12345678"', '"P"')


def test_an_escape_is_no_part_of_an_id() -> None:
    text = r'{"actor":{"id":"nabcdefgh"},"a":"\nabcdefgh","b":"\\nabcdefgh","c":"\u006eabcdefgh"}'
    changed = json.loads(pseudonymise(text, "nabcdefgh", "P"))
    assert changed == {"actor": {"id": "P"}, "a": "\nabcdefgh", "b": "\\P", "c": "P"}


@pytest.mark.parametrize("within", [(), ("edata",)])
def test_a_text_without_it_is_the_same_text(within: tuple[str, ...]) -> None:
    text = '{"a": "\\u0041", "b": "user-00018"}'
    assert pseudonymise(text, ID, NAME, within) is text


def test_a_part_of_an_event_follows_the_same_rules() -> None:
    cdata = '[{"type":"User","id":"u1"},{"type":"Session","id":"u1"}]'
    assert pseudonymise(cdata, "u1", "P", ("context", "cdata")) == cdata.replace('"u1"', '"P"', 1)
    assert pseudonymise(cdata, "u1", "P", ("edata",)) == cdata
    assert pseudonymise(f'{{"mid":"{ID}"}}', ID, NAME, ("edata",)) == f'{{"mid":"{NAME}"}}'


def test_what_is_no_json_is_replaced_outside_of_strings_too() -> None:
    raw = b'id=user-00017-9f8e&x="user-00017-9f8e" \xff\xfe "\\q user-00017-9f8e'
    assert pseudonymise_bytes(raw, ID, "P") == b'id=P&x="P" \xff\xfe "\\q P'
    assert pseudonymise_bytes(b'{"n":12345678,"s":"12345678"}', "12345678", "P") == b'{"n":12345678,"s":"P"}'
    assert pseudonymise_bytes(b'{"actor":{"id":"u1"},', "u1", "P") == b'{"actor":{"id":"P"},'
    assert pseudonymise_bytes(b"u1 u1", "u1", "P") == b"u1 u1"


def test_a_string_of_a_row_is_replaced_where_the_id_is_long() -> None:
    assert pseudonymise_text(f"a {ID}", ID, "P") == "a P"
    assert pseudonymise_text("u1", "u1", "P") == "u1"


_TEXTS = st.sampled_from(
    [ID, "u1", "type", "id", "User", "actor", "context", "cdata", "object", "mid", f"a{ID}b", 'q"\\']
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=9) | _TEXTS,
    lambda more: st.lists(more, max_size=4) | st.dictionaries(_TEXTS, more, max_size=5),
    max_leaves=25,
)


def by_value(value: Any, id_: str, path: tuple[str | int, ...] = (), types: Any = None) -> Any:
    """Do the same to values: what the text must say afterwards."""
    is_long = len(id_) >= 8
    if isinstance(value, dict):
        return {
            (key.replace(id_, NAME) if is_long else key): by_value(one, id_, (*path, key), value)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [by_value(one, id_, (*path, at)) for at, one in enumerate(value)]
    if not isinstance(value, str) or (is_long and path in (("mid",), ("eid",), ("ver",))):
        return value
    if is_long:
        return value.replace(id_, NAME)
    holder, type_ = path[:-1], types.get("type") if types else None
    is_user = isinstance(type_, str) and type_.lower() == "user"
    is_named = (
        path[-1:] == ("id",)
        and isinstance(types, dict)
        and (
            holder == ("actor",)
            or (holder == ("object",) and is_user)
            or (holder[:2] == ("context", "cdata") and len(holder) == 3 and is_user)
        )
    )
    return NAME if is_named and value == id_ else value


@given(st.dictionaries(_TEXTS, _VALUES, max_size=5), st.sampled_from([ID, "u1"]), st.booleans())
def test_the_text_says_what_replacing_in_values_would_say(value: dict[str, Any], id_: str, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json.loads(pseudonymise(text, id_, NAME)) == by_value(value, id_)


@given(st.binary(max_size=200), st.sampled_from([b"", ID.encode(), b'"' + ID.encode(), b'{"actor":{"id":"']))
def test_no_bytes_break_it_and_none_of_a_long_id_is_left(raw: bytes, part: bytes) -> None:
    changed = pseudonymise_bytes(raw + part + raw, ID, NAME)
    assert ID.encode() not in changed or orjson.loads(raw + part + raw)


@pytest.mark.parametrize(
    "unit", ['{"a":', "[", '"', '\\"', '{"actor":{', ID, '"id":"', '{"type":"x","a":', f'{{"{ID}":']
)
def test_it_takes_time_by_length_whatever_stands_there(unit: str) -> None:
    began = time.process_time()
    pseudonymise(unit * (500_000 // len(unit)) + ID, ID, NAME)
    pseudonymise_bytes((unit * (500_000 // len(unit)) + ID).encode(), ID, NAME)
    assert time.process_time() - began < 5
