"""What a write gives, and what the reply says of what it gives wrongly."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from midstream.assignments.fields import FIELDS, BodyError, read_write
from midstream.assignments.text import MAX_DEPTH
from tests.unit.assignments.slow import REFUSED, read_slowly

NUMBER = ["A valid number is required."]
TOO_HIGH = ["Ensure this value is less than or equal to 100."]
TOO_LOW = ["Ensure this value is greater than or equal to 0."]
DURATION = ["Duration has wrong format. Use one of these formats instead: [HH:MM:SS, PT...]."]
TOO_MANY_DAYS = ["The number of days must be between 0 and 106751991."]


def refused(body: bytes | str) -> dict[str, Any]:
    with pytest.raises(BodyError) as error:
        read_write(body if isinstance(body, bytes) else body.encode())
    json.dumps(error.value.reply, allow_nan=False).encode()
    return error.value.reply


def no_json(body: bytes | str) -> str:
    reply = refused(body)
    assert set(reply) == {"detail", "status_code"}
    assert reply["status_code"] == 400
    detail: str = reply["detail"]
    assert detail.startswith("JSON parse error - ")
    assert len(detail) < 150
    return detail.removeprefix("JSON parse error - ")


def test_the_fields_stand_in_the_order_of_the_reply() -> None:
    assert FIELDS == (
        "telemetry",
        "metrics",
        "engagement_score",
        "frustration_score",
        "completion_rate",
        "metrics_algo_version",
        "total_time",
    )


@pytest.mark.parametrize("body", [b"", b" ", b"\r\n\t ", b"{}", b" { } ", b"\xef\xbb\xbf", b"\xef\xbb\xbf{}"])
def test_nothing_gives_nothing(body: bytes) -> None:
    assert read_write(body) == {}


def test_gives_what_was_sent_and_nothing_else() -> None:
    body = b""" {"telemetry" : { "a": [1, 2.50, "\\u00e9"] } , "metrics":{}, "engagement_score": 90, "id": 7,
        "frustration_score": "12.5", "completion_rate": null, "total_time": "PT1H", "other": [NaNs] } """
    values = read_write(body.replace(b"[NaNs]", b"[null]"))
    assert values == {
        "telemetry": b'{ "a": [1, 2.50, "\\u00e9"] }',
        "metrics": b"{}",
        "engagement_score": 90.0,
        "frustration_score": 12.5,
        "completion_rate": None,
        "total_time": 3_600_000_000,
    }
    assert isinstance(values["engagement_score"], float)
    assert isinstance(values["total_time"], int)


@pytest.mark.parametrize("name", FIELDS)
def test_null_clears_each_field(name: str) -> None:
    assert read_write(json.dumps({name: None}).encode()) == {name: None}


def test_the_last_of_doubled_keys_counts() -> None:
    body = (
        '{"metrics": [], "metrics": {"a": 1}, "completion_rate": NaN, "completion_rate": 5, "completion\\u005frate": 6}'
    )
    assert read_write(body.encode()) == {"metrics": b'{"a": 1}', "completion_rate": 6.0}
    assert refused('{"completion_rate": 5, "completion_rate": "x"}') == {"completion_rate": NUMBER}


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        *(("0", 0.0), ("100", 100.0), ("90.5", 90.5), ("9e1", 90.0), ("1E+2", 100.0), ("-0", 0.0), ("-0.0", 0.0)),
        *(('"90.5"', 90.5), ('" 90.5 "', 90.5), ('"9e1"', 90.0), ('"+5"', 5.0), ('".5"', 0.5), ('"5."', 5.0)),
        *(('"007"', 7.0), ('"1e-999"', 0.0), ("1e-999", 0.0), ('"\\u0039\\u0030"', 90.0), ('"5\\n"', 5.0)),
        ("0." + "1" * 5_000, 1 / 9),
        ('"' + "0" * 998 + '.5"', 0.5),
    ],
)
@pytest.mark.parametrize("name", FIELDS[2:6])
def test_reads_a_number(name: str, sent: str, number: float) -> None:
    value = read_write(f'{{"{name}": {sent}}}'.encode())[name]
    assert repr(value) == repr(number)


@pytest.mark.parametrize(
    "sent",
    [
        *(
            '""',
            '" "',
            '"nan"',
            '" nan"',
            '"NaN "',
            '"-nan"',
            '"inf"',
            '"-inf"',
            '"+Infinity"',
            '"infinity"',
            '"1e999"',
        ),
        *('"-1e999"', "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "-" + "9" * 400, "9" * 5_000),
        *(
            '"' + "9" * 400 + '"',
            '"ninety"',
            '"9 0"',
            '"1_0"',
            '"٣"',
            '"９０"',
            '"0x10"',
            '"1,5"',
            '"."',
            '"e5"',
            '"5\\u0000"',
        ),
        *("[]", "[5]", "{}", '{"a": 5}', "true", "false", '"true"', '"null"', '"' + "0" * 999 + '.5"', '"\\u00a05"'),
    ],
)
@pytest.mark.parametrize("name", FIELDS[2:6])
def test_refuses_what_is_no_number(name: str, sent: str) -> None:
    assert refused(f'{{"{name}":{sent} }}') == {name: NUMBER}


@pytest.mark.parametrize("name", FIELDS[2:5])
def test_scores_have_limits(name: str) -> None:
    for sent in ("100.0000001", "101", '"101"', str(10**30), "9" * 308, "1e308"):
        assert refused(f'{{"{name}": {sent}}}') == {name: TOO_HIGH}
    for sent in ("-0.1", "-1", '"-1"', "-1e308", str(-(10**30)), "-1e-300"):
        assert refused(f'{{"{name}": {sent}}}') == {name: TOO_LOW}


def test_the_version_has_none() -> None:
    assert read_write(b'{"metrics_algo_version": -1e308}') == {"metrics_algo_version": -1e308}
    assert read_write(f'{{"metrics_algo_version": {10**30}}}'.encode()) == {"metrics_algo_version": 1e30}


@pytest.mark.parametrize(
    ("sent", "duration_us"),
    [
        *(("90", 90_000_000), ('"90"', 90_000_000), ("90.5", 90_500_000), ("0.1", 100_000), ("1e3", 1_000_000_000)),
        *(('"25:00:00"', 90_000_000_000), ('"P1DT1H"', 90_000_000_000), ("-0", 0), ("1e-999", 0)),
    ],
)
def test_reads_a_duration(sent: str, duration_us: int) -> None:
    assert read_write(f'{{"total_time": {sent}}}'.encode()) == {"total_time": duration_us}


@pytest.mark.parametrize(
    "sent",
    [
        *(
            '"1h"',
            '"P1W"',
            '"P1Y"',
            '""',
            "true",
            "false",
            "[]",
            "{}",
            "-1",
            "-1.5",
            '"-1"',
            '"nan"',
            "NaN",
            "Infinity",
        ),
        *("-Infinity", '"Infinity"', "-1e999", "-" + "9" * 5_000, '"' + "9" * 5_000 + '"'),
    ],
)
def test_refuses_what_is_no_duration(sent: str) -> None:
    assert refused(f'{{"total_time": {sent}}}') == {"total_time": DURATION}


@pytest.mark.parametrize("sent", ["1e999", "9" * 5_000, "9" * 400, "1e308", '"106751992 days"', str(2**63)])
def test_refuses_what_is_too_long(sent: str) -> None:
    assert refused(f'{{"total_time": {sent}}}') == {"total_time": TOO_MANY_DAYS}


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("[]", "list"),
        ('"{}"', "str"),
        ("5", "int"),
        ("-5", "int"),
        ("5.0", "float"),
        ("5e1", "float"),
        ("true", "bool"),
    ],
)
@pytest.mark.parametrize("field", FIELDS[:2])
def test_refuses_what_is_no_object(field: str, sent: str, name: str) -> None:
    assert refused(f'{{"{field}": {sent}}}') == {field: [f'Expected a dictionary of items but got type "{name}".']}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        *(("[]", "list"), ('[{"engagement_score": 500}]', "list"), ('"text"', "str"), ("5", "int"), (" -5 ", "int")),
        *(("5.5", "float"), ("1e5", "float"), ("true", "bool"), ("false", "bool"), ("null", "NoneType")),
    ],
)
def test_refuses_a_body_that_is_no_object(body: str, name: str) -> None:
    assert refused(body) == {"non_field_errors": [f"Invalid data. Expected a dictionary, but got {name}."]}


def test_names_the_errors_of_all_fields_at_once_in_the_order_of_the_reply() -> None:
    reply = refused(
        '{"total_time": "1h", "metrics_algo_version": NaN, "completion_rate": [], "frustration_score": "-1",'
        ' "engagement_score": 100.5, "metrics": 1, "telemetry": []}'
    )
    assert list(reply.items()) == [
        ("telemetry", ['Expected a dictionary of items but got type "list".']),
        ("metrics", ['Expected a dictionary of items but got type "int".']),
        ("engagement_score", TOO_HIGH),
        ("frustration_score", TOO_LOW),
        ("completion_rate", NUMBER),
        ("metrics_algo_version", NUMBER),
        ("total_time", DURATION),
    ]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", "line 1 column 2 (char 1)"),
        (b'{"a": 1', "line 1 column 8 (char 7)"),
        (b'{"a":\n x}', "line 2 column 2 (char 7)"),
        (b"engagement_score=5", "line 1 column 1 (char 0)"),
        (b'{"a": 1,}', "line 1 column 9 (char 8)"),
        (b"{} {}", "line 1 column 4 (char 3)"),
        (b'{"a": 01}', "line 1 column 8 (char 7)"),
        (b'{"telemetry": {"a": "\\q"}}', "line 1 column 22 (char 21)"),
        (b'{"telemetry": {"a": "\x01"}}', "line 1 column 22 (char 21)"),
        (b'{"telemetry": {"a": "\\ud800"}}', "\\ud800 at offset 21 is half a surrogate pair"),
        (b'{"telemetry": {"\\udc00\\ud800": 1}}', "\\udc00 at offset 16 is half a surrogate pair"),
        (b'{"telemetry": {"a": "\xff"}}', "byte 0xff at offset 21 is not UTF-8"),
        (b'{"x": "\xed\xa0\x80"}', "byte 0xed at offset 7 is not UTF-8"),
        ("{}".encode("utf-16"), "byte 0xff at offset 0 is not UTF-8"),
        ("{}".encode("utf-16-le"), "line 1 column 2 (char 1)"),
        (b"NaN", "NaN at offset 0 is not JSON"),
        (b'{"telemetry": NaN}', "NaN at offset 14 is not JSON"),
        (b'{"telemetry": {"NaN": [-Infinity]}}', "-Infinity at offset 23 is not JSON"),
        (b'{"x": NaN, "engagement_score": NaN}', "NaN at offset 6 is not JSON"),
        (b'{"engagement_score": [NaN]}', "NaN at offset 22 is not JSON"),
        (b'{"engagement_score": NaN,}', "line 1 column 26 (char 25)"),
        (b'{"engagement_score": NaN NaN}', "line 1 column 26 (char 25)"),
        (b'{"engagement_score": +NaN}', "line 1 column 22 (char 21)"),
        (b'{"telemetry": {"a": 1e999}}', "in telemetry: the number 1e999 at offset 6 is out of range"),
        (b'{"metrics": {"a": [-1E+400]}}', "in metrics: the number -1E+400 at offset 7 is out of range"),
        (
            b'{"metrics": {"a": ' + b"9" * 5_000 + b"}}",
            "in metrics: the number 9999999999... at offset 6 is out of range",
        ),
        (
            b'{"metrics": {"a": ' + b"9" * 250 + b"e99}}",
            "in metrics: the number 9999999999... at offset 6 is out of range",
        ),
    ],
)
def test_says_where_a_body_is_no_json(body: bytes, where: str) -> None:
    assert no_json(body).endswith(where)


def test_what_nobody_knows_is_left_alone() -> None:
    body = b'{"id": "x", "asset_slug": 5, "x": 1e999, "y": {"z": [' + b"9" * 5_000 + b']}, "metrics": {}}'
    assert read_write(body) == {"metrics": b"{}"}


@pytest.mark.parametrize("opening", ['{"a":', "[", '[{"\\"[":'])
def test_nesting_has_a_limit(opening: str) -> None:
    closing = {"[": "]", "{": "}"}

    def body(depth: int) -> bytes:
        levels = (opening * depth)[: len(opening) * depth] if len(opening) < 6 else opening * (depth // 2)
        ends = "".join(closing[c] for c in reversed(levels.replace('\\"[', "")) if c in "[{")
        return f'{{"telemetry": {{"x": {levels}0{ends}, "y": "]]}}}}"}}}}'.encode()

    assert json.loads(read_write(body(MAX_DEPTH - 2))["telemetry"] or b"")["y"] == "]]}}"
    assert "nested 301 deep, the limit is 200" in no_json(body(300))
    assert "nested deeper than 200" in no_json(body(100_000))


def test_brackets_in_strings_are_no_nesting() -> None:
    telemetry = {"a": ["[" * 300, '\\"{' * 300, "\\", '"', '\\\\"[' * 300], "b": [[{}]] * 200}
    for at in range(0, 100_000, 31_990):  # where the pieces that are looked at meet
        telemetry["padding"] = "x" * at
        for body in (json.dumps({"telemetry": telemetry}), json.dumps({"telemetry": {"p": 'y\\"' * at, **telemetry}})):
            assert json.loads(read_write(body.encode())["telemetry"] or b"")["b"] == telemetry["b"]


@pytest.mark.parametrize("text", ["1e999", "1E+999", "-1e308001", "9" * 310])
def test_an_infinite_number_is_found_wherever_it_stands_and_not_in_a_string(text: str) -> None:
    for padding in (*range(60), *range(31_950, 32_050), 63_990):
        prefix = '{"p":"' + "x" * padding + '","n":'
        assert "out of range" in no_json(f'{{"telemetry": {prefix}{text}}}}}')
        kept = f'{prefix}"{text}"}}'
        assert read_write(f'{{"telemetry": {kept}}}'.encode()) == {"telemetry": kept.encode()}


_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
_texts = st.one_of(
    _plain.map(json.dumps),
    st.text(alphabet="0123456789.eE+-_ \tnaifINty٣", max_size=6).map(json.dumps),
    st.text(alphabet="0123456789.eE+-", max_size=6),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 400, '"PT1H"', '"1 01:00:00"', "null"]),
    st.sampled_from(
        ['{"a": NaN}', '{"a": [1e999]}', '{"b": "1e999"}', '"\\ud83d\\ude00"', '"\\ud83d"', '{"a":"\\\\"}']
    ),
)
_spaces = st.text(alphabet=" \t\n\r", max_size=2)


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    names = st.sampled_from([*FIELDS, "id", "x", "total\\u005ftime"])
    members = draw(st.lists(st.tuples(names, _spaces, _texts, _spaces), max_size=5))
    body = "{" + ",".join(f'"{name}":{before}{text}{after}' for name, before, text, after in members) + "}"
    encoded = (draw(_spaces) + body + draw(_spaces)).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(encoded)))
        encoded = encoded[:at] + draw(st.binary(max_size=2)) + encoded[at + draw(st.integers(0, 2)) :]
    return encoded


def outcome(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a body gives, and what the reply says if it is refused."""
    try:
        return dict(read_write(body)), {}
    except BodyError as error:
        json.dumps(error.reply, allow_nan=False).encode()
        return {}, error.reply


@given(_bodies() | _texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b'{"completion_rate":0,"completion_rate":NaN}')
@example(b'{"x": "\\ud800", "x": 1}')
@example(b'{"telemetry":null,"telemetry":NaN,"telemetry":""}')
@example(b'{"telemetry":1E310}')
def test_reads_what_the_slow_reference_reads(body: bytes) -> None:
    values, reply = outcome(body)
    expected = read_slowly(body)
    if "detail" in reply:
        assert expected == REFUSED
    elif "non_field_errors" in reply:
        assert reply["non_field_errors"][0].endswith(f"got {expected['non_field_errors']}.")
    elif reply:
        assert list(reply) == [name for name in FIELDS if name in reply]
        said = {name: messages[0].split(" got type ")[-1] for name, messages in reply.items()}
        for name in FIELDS[:2]:
            if name in said:
                said[name] = said[name].strip('".')
        assert {"errors": said} == expected
    else:
        texts = {name: value for name, value in values.items() if isinstance(value, bytes)}
        objects = {name: json.loads(text, parse_int=str, parse_float=str) for name, text in texts.items()}
        assert values | objects == expected
        for text in texts.values():
            assert text == text.strip()
            msgspec.json.decode(text)
            json.dumps(json.loads(text), allow_nan=False).encode()


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,\\ue1-.NaIinfty \n', max_size=40).map(str.encode))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    values, reply = outcome(body)
    assert set(values) <= set(FIELDS)
    assert not (values and reply)


def test_a_body_too_deep_for_the_parser_is_refused_from_deep_within() -> None:
    body = b'{"x":' + b"[" * 900 + b"]" * 900 + b"}"

    def descend(levels: int) -> None:
        if levels:
            return descend(levels - 1)
        return no_json(body)

    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    assert "nested deeper" in descend(700 - depth)
