"""The page for the app developer says what the code does."""

import json
import re
from pathlib import Path

import orjson

from midstream.events.judge import Accepted, Judge
from midstream.events.schemas import _PROVEN_KEYWORDS, load_schemas
from midstream.reference import reason_table

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text("utf-8")
BLOCKS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_the_reason_codes_are_those_of_the_code() -> None:
    assert reason_table() in PAGE, "midstream.reference.reason_table() makes it"


def test_every_event_type_is_named() -> None:
    assert all(re.search(rf"\b{eid}\b", PAGE) for eid in load_schemas())


def test_the_event_is_valid_and_the_schema_loads(tmp_path: Path) -> None:
    event, entry, schema = BLOCKS
    assert entry["code"] == "SCHEMA_VIOLATION"
    (tmp_path / "ticket.json").write_text(json.dumps(schema), "utf-8")
    schemas = load_schemas(tmp_path)
    assert isinstance(Judge(schemas, 512 * 1024, 64).judge(orjson.dumps(event)), Accepted)
    assert schemas["TICKET"].fast is not None


def test_the_fast_keywords_are_named() -> None:
    says_nothing = {"$schema", "$id", "$comment", "title", "description", "examples", "default"}
    assert [keyword for keyword in _PROVEN_KEYWORDS - says_nothing if f"`{keyword}`" not in PAGE] == []
