"""A deployment's own schemas: what can be added, and what fails the start."""

import json
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest

from midstream.codes import Reason
from midstream.events.judge import Accepted, Judge, Refused
from midstream.events.schemas import BASE_URI, SchemaError, load_schemas
from tests.unit.events.examples import full_events

ROOT = Path(__file__).parents[3]

TICKET = {
    "title": "TICKET",
    "properties": {
        "edata": {
            "type": "object",
            "required": ["id", "target"],
            "properties": {"id": {"type": "string"}, "target": {"$ref": "common.json#/$defs/target"}},
            "additionalProperties": False,
        }
    },
}


def write(folder: Path, name: str, schema: Any) -> None:
    (folder / name).write_text(schema if isinstance(schema, str) else json.dumps(schema), "utf-8")


def ticket(**edata: Any) -> bytes:
    edata = {"id": "t1", "target": {"id": "a", "ver": "1", "type": "x"}, **edata}
    return orjson.dumps({**full_events()["EXDATA"], "eid": "TICKET", "edata": edata})


def judge(folder: Path) -> Judge:
    return Judge(load_schemas(folder), 512 * 1024, 64)


def test_a_file_adds_an_event_type(tmp_path: Path) -> None:
    write(tmp_path, "ticket.json", TICKET)
    (tmp_path / "README.md").write_text("not a schema")
    (tmp_path / "examples").mkdir()
    verdict = Judge(load_schemas(), 512 * 1024, 64).judge(ticket())
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.UNKNOWN_EID
    assert isinstance(judge(tmp_path).judge(ticket()), Accepted)
    verdict = judge(tmp_path).judge(ticket(target={"id": "a"}))
    assert isinstance(verdict, Refused)
    assert verdict.pointer == "/edata/target/ver"


def test_the_envelope_is_checked_though_the_file_says_nothing_of_it(tmp_path: Path) -> None:
    write(tmp_path, "ticket.json", {})
    event = json.loads(ticket())
    assert isinstance(judge(tmp_path).judge(orjson.dumps(event)), Accepted)
    del event["context"]["channel"]
    verdict = judge(tmp_path).judge(orjson.dumps(event))
    assert isinstance(verdict, Refused)
    assert verdict.pointer == "/context/channel"


@pytest.mark.parametrize("envelope", ["envelope.json", BASE_URI + "envelope.json"])
def test_a_file_may_refer_to_ours_and_to_its_neighbours(tmp_path: Path, envelope: str) -> None:
    write(tmp_path, "ticket.json", {"$ref": envelope, **TICKET})
    write(tmp_path, "ticket_closed.json", {"$id": "https://fleet.example/closed", "$ref": BASE_URI + "ticket.json"})
    verdict = judge(tmp_path).judge(ticket().replace(b'"TICKET"', b'"TICKET_CLOSED"'))
    assert isinstance(verdict, Accepted)


def test_keywords_that_are_not_proven_are_left_to_the_reference(tmp_path: Path) -> None:
    # Python's \d is any digit, Rust's in this dialect is 0-9 alone: fast and reference would differ.
    write(tmp_path, "ticket.json", {"properties": {"edata": {"properties": {"id": {"pattern": r"^[^\d]+$"}}}}})
    schemas = load_schemas(tmp_path)
    assert schemas["TICKET"].fast is None
    assert schemas["INTERACT"].fast is not None
    assert isinstance(judge(tmp_path).judge(ticket(id="abc")), Accepted)
    verdict = judge(tmp_path).judge(ticket(id="\u0663"))
    assert isinstance(verdict, Refused)
    assert verdict.pointer == "/edata/id"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"edata": {"properties": {"pattern": {"type": "string"}}}}},
        {"properties": {"edata": {"enum": ["a"]}}},
    ],
)
def test_names_of_properties_are_no_keywords(tmp_path: Path, schema: dict[str, Any]) -> None:
    write(tmp_path, "ticket.json", schema)
    assert load_schemas(tmp_path)["TICKET"].fast is not None


def test_a_neighbour_that_is_not_proven_counts_too(tmp_path: Path) -> None:
    write(tmp_path, "ticket.json", {"$ref": "other.json"})
    write(tmp_path, "other.json", {"properties": {"edata": {"patternProperties": {"^x": False}}}})
    assert load_schemas(tmp_path)["TICKET"].fast is None


def test_a_recursive_schema_never_ends_the_worker(tmp_path: Path) -> None:
    chain = {"properties": {"a": {"$ref": "#/$defs/chain"}}}
    edata = {"$ref": "#/$defs/chain", "contains": {}}  # the second for the reference alone
    write(tmp_path, "ticket.json", {"$defs": {"chain": chain}, "properties": {"edata": edata}})
    deep: Any = {"a": 1}
    for _ in range(240):
        deep = {"a": deep}
    event = {**json.loads(ticket()), "edata": deep}
    verdict = Judge(load_schemas(tmp_path), 512 * 1024, 250).judge(orjson.dumps(event))
    assert isinstance(verdict, Accepted) or verdict.reason is Reason.TOO_DEEP


@pytest.mark.parametrize(
    ("name", "schema", "message"),
    [
        ("ticket.json", "{", "Expecting"),
        ("ticket.json", "[]", "is not of type"),
        ("ticket.json", "true", "must be an object"),
        ("ticket.json", {"type": "strin"}, "strin"),
        ("ticket.json", {"properties": {"edata": {"required": "id"}}}, r"\$\.properties\.edata\.required"),
        ("ticket.json", {"$ref": "nowhere.json"}, "nowhere.json"),
        ("ticket.json", {"properties": {"edata": {"$ref": "common.json#/$defs/nothing"}}}, "nothing"),
        ("ticket.json", {"$ref": "https://elsewhere.example/x.json"}, "elsewhere"),
        ("ticket.json", {"properties": {"a": {"pattern": "(?P<a"}}}, "is not a 'regex'"),
        ("ticket.json", {"$schema": "http://json-schema.org/draft-07/schema#"}, r"\$schema"),
        ("ticket.json", {"$id": BASE_URI + "interact.json"}, r"\$id"),
        ("Ticket.json", {}, "lower case"),
        ("my ticket.json", {}, "lower case"),
        ("interact.json", {}, "built in"),
        ("common.json", {}, "built in"),
        ("envelope.json", {}, "built in"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, schema: Any, message: str) -> None:
    write(tmp_path, name, schema)
    with pytest.raises(SchemaError, match=message) as caught:
        load_schemas(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"MIDSTREAM_SCHEMAS.*missing"):
        load_schemas(tmp_path / "missing")


def test_the_schema_files_are_packaged() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    packaged = {path for pattern in declared["schemas"] for path in (ROOT / "schemas").glob(pattern)}
    files = {path for suffix in ("json", "avsc", "sql") for path in (ROOT / "schemas").rglob(f"*.{suffix}")}
    # What was released is for developers: who runs an installed version changes no schema.
    assert packaged == {path for path in files if "examples" not in path.parts and path.name != "released.json"}
