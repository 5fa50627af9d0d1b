"""A deployment's own schemas: which may be judged the quick way, and that it agrees there too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream.events.judge import Judge
from midstream.events.quick import QuickReader
from midstream.events.schemas import BASE_URI, Schemas, load_schemas
from tests.unit.events.test_differential import OWN, OWN_EVENT, mutated
from tests.unit.events.ways import (
    MAX_BYTES,
    MAX_DEPTH,
    PLAIN,
    SETTINGS,
    agree,
    slow_judge,
    texts,
)


def load(folder: Path, **documents: Any) -> Schemas:
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document), "utf-8")
    return load_schemas(folder)


@dataclass(frozen=True)
class Ways:
    quick: QuickReader
    judge: Judge
    slow: Judge


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Ways:
    schemas = load(tmp_path_factory.mktemp("schemas"), own=OWN)
    return Ways(QuickReader(schemas, MAX_BYTES, MAX_DEPTH), Judge(schemas, MAX_BYTES, MAX_DEPTH), slow_judge(schemas))


@SETTINGS
@given(raws=st.lists(texts(mutated({"OWN": {**OWN_EVENT, "ets": 1_789_999_999_123}})), min_size=1, max_size=3))
def test_they_agree_on_every_proven_keyword(own: Ways, raws: list[bytes]) -> None:
    agree(own.quick, own.slow, raws)
    for raw in raws:
        assert own.judge.judge(raw) == own.slow.judge(raw)


EDATA = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}


@pytest.mark.parametrize(
    ("document", "is_quick"),
    [
        ({}, True),
        ({"title": "TICKET", "$schema": "https://json-schema.org/draft/2020-12/schema"}, True),
        ({"properties": {"edata": EDATA}}, True),
        ({"type": "object", "$ref": "envelope.json", "properties": {"edata": EDATA}}, True),
        ({"$ref": BASE_URI + "envelope.json", "properties": {"eid": {"const": "TICKET"}, "edata": EDATA}}, True),
        ({"$defs": {"e": EDATA}, "properties": {"edata": {"$ref": "#/$defs/e"}}}, True),
        ({"properties": {"edata": False}}, True),
        ({"properties": {"eid": {"const": "OTHER"}, "edata": EDATA}}, False),
        ({"properties": {"actor": {"required": ["name"]}}}, False),
        ({"required": ["object"]}, False),
        ({"additionalProperties": False}, False),
        ({"allOf": [{"required": ["object"]}]}, False),
        ({"$ref": "interact.json"}, False),
        ({"$ref": "common.json#/$defs/ref"}, False),
        ({"type": ["object", "null"]}, False),
        ({"type": "array"}, False),
        ({"properties": {"edata": {"$id": "elsewhere/", **EDATA}}}, False),
        ({"properties": {"edata": {"properties": {"id": {"pattern": "x"}}}}}, False),
    ],
)
def test_only_a_schema_that_says_nothing_beyond_edata_is_quick(
    tmp_path: Path, document: dict[str, Any], is_quick: bool
) -> None:
    schemas = load(tmp_path, ticket=document)
    assert (schemas["TICKET"].fast_edata is not None) == is_quick
    quick, slow = QuickReader(schemas, MAX_BYTES, MAX_DEPTH), slow_judge(schemas)
    for edata in ({}, {"id": "a"}, {"id": 1}):
        agree(quick, slow, [orjson.dumps({**PLAIN["HEARTBEAT"], "eid": "TICKET", "edata": edata})])
