"""The schemas of events: those of the specification, and those of a deployment's own folder.

A file ``<eid in lower case>.json`` is an event type; ``common.json`` and ``envelope.json`` are shared definitions, and
no event types. A deployment's file says what its event has beyond the envelope, which is checked whatever it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import jsonschema_rs
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError as InvalidSchema
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from midstream.events.focus import FocusedValidator

BASE_URI = "https://midstream.example/telemetry/3.0/"
"""Identifiers of the schemas begin with it; nothing is ever fetched from there."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SHARED = frozenset({"common.json", "envelope.json"})
_FILE_NAME = re.compile(r"[a-z][a-z0-9_]*\.json")

_SAYS_NOTHING = frozenset({"$schema", "$id", "$comment", "title", "description", "examples", "default"})
_PROVEN_KEYWORDS = _SAYS_NOTHING | frozenset(
    {
        *("$ref", "$defs"),
        *("type", "const", "enum", "properties", "required", "additionalProperties", "items", "allOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"),
    }
)
"""Keywords for which a differential test proves that the fast validator accepts nothing that the reference refuses. A
schema that uses others (``pattern`` is one: the regular expressions of Python and Rust differ) is judged by the
reference alone. None of them looks at an array as a whole, so that each element can be judged apart."""


class SchemaError(Exception):
    """A schema file cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class EventSchema:
    """How the events of one eid are judged."""

    eid: str
    reference: Validator
    """The Python implementation: it decides, and words refusals."""
    fast: jsonschema_rs.Draft202012Validator | None
    """Accepts nothing that the reference refuses; None where that is not proven."""
    focused: Validator | None = None
    """The reference, looking at marked places alone (:mod:`midstream.events.focus`); None without the fast one."""
    fast_edata: jsonschema_rs.Draft202012Validator | None = None
    """The same for ``edata`` alone, where the schema says nothing else beyond the envelope; otherwise None."""


Schemas = dict[str, EventSchema]
"""By eid, upper case, as events name it."""


def load_schemas(own: Path | None = None) -> Schemas:
    """Load the schemas of the specification and those in the folder ``own`` (the setting ``MIDSTREAM_SCHEMAS``).

    Raises:
        SchemaError: the folder, or a file in it, cannot be used.
    """
    builtin = _read_folder(resources.files("schemas").joinpath("telemetry", "3.0"))
    added: dict[str, _File] = {}
    if own is not None:
        if not own.is_dir():
            raise SchemaError(f"MIDSTREAM_SCHEMAS: {own} is no folder")
        added = _read_folder(own)
        for name in sorted(added.keys() & builtin.keys()):
            raise SchemaError(f"{added[name].label}: the schema of that name is built in and cannot be replaced")
    files = {**builtin, **added}
    labels: dict[str, str] = {}
    for file in files.values():
        other = labels.setdefault(file.uri, file.label)
        if other != file.label:
            raise SchemaError(f"{file.label}: its $id is that of {other}")

    reference_registry: Registry[Any] = Registry().with_resources(
        (file.uri, DRAFT202012.create_resource(file.document)) for file in files.values()
    )
    for file in added.values():
        _check_references(file, reference_registry)
    fast_registry = jsonschema_rs.Registry([(file.uri, file.document) for file in files.values()])
    added_is_proven = all(file.is_proven for file in added.values())  # they may refer to each other
    schemas: Schemas = {}
    for name, file in files.items():
        if name in _SHARED:
            continue
        entry: dict[str, Any] = {"$ref": file.uri}
        if name in added:
            entry = {"allOf": [{"$ref": BASE_URI + "envelope.json"}, entry]}  # a row needs what the envelope has
        try:
            fast = jsonschema_rs.Draft202012Validator(entry, registry=fast_registry, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise SchemaError(f"{file.label}: {error}") from error
        eid = name.removesuffix(".json").upper()
        reference = Draft202012Validator(entry, registry=reference_registry)
        if name in builtin or added_is_proven:
            focused = FocusedValidator(entry, registry=reference_registry)
            schemas[eid] = EventSchema(eid, reference, fast, focused, _fast_edata(file, eid, fast_registry))
        else:
            schemas[eid] = EventSchema(eid, reference, None)
    return schemas


@dataclass(frozen=True, slots=True)
class _File:
    label: str
    uri: str
    document: dict[str, Any]
    is_proven: bool


def _fast_edata(file: _File, eid: str, registry: jsonschema_rs.Registry) -> jsonschema_rs.Draft202012Validator | None:
    """Return what judges ``edata`` alone; None if the schema may say anything of the event beside it."""
    document = file.document
    properties = document.get("properties", {})
    says_more = document.keys() - _SAYS_NOTHING - {"$defs", "$ref", "type", "properties"} or (
        properties.keys() - {"eid", "edata"}
    )
    envelope_uri = BASE_URI + "envelope.json"
    if (
        says_more
        or urljoin(file.uri, document.get("$ref", envelope_uri)) != envelope_uri
        or document.get("type", "object") != "object"
        or properties.get("eid", {"const": eid}) != {"const": eid}
        or sum(keyword == "$id" for keyword, _ in _keywords(document)) > 1  # it would change what a $ref inside means
    ):
        return None
    entries = [{"$ref": f"{envelope_uri}#/properties/edata"}]
    if "edata" in properties:
        entries.append({"$ref": f"{file.uri}#/properties/edata"})
    return jsonschema_rs.Draft202012Validator({"allOf": entries}, registry=registry, offline=True)


def _read_folder(folder: Traversable) -> dict[str, _File]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {entry.name: _read_file(entry) for entry in entries if entry.is_file() and entry.name.endswith(".json")}


def _read_file(entry: Traversable) -> _File:
    label = str(entry)
    if not _FILE_NAME.fullmatch(entry.name):
        raise SchemaError(f"{label}: the name must be the eid in lower case (a-z, 0-9, _) and .json")
    try:
        document = json.loads(entry.read_text("utf-8"))
        Draft202012Validator.check_schema(document)
    except InvalidSchema as error:
        raise SchemaError(f"{label}: {error.json_path}: {error.message}") from error
    except (ValueError, OSError) as error:
        raise SchemaError(f"{label}: {error}") from error
    if not isinstance(document, dict):
        raise SchemaError(f"{label}: the schema must be an object")
    # Taken out: at each schema that names its dialect the reference would go on as its own class for that.
    if document.pop("$schema", _DIALECT).rstrip("#") != _DIALECT:
        raise SchemaError(f"{label}: $schema must be {_DIALECT}")
    document["$id"] = uri = urljoin(BASE_URI, document.get("$id", entry.name)).rstrip("#")
    keywords = set()
    for keyword, value in _keywords(document):
        # How an object or array compares with another is not proven.
        keywords.add(keyword if keyword not in ("const", "enum") or _are_strings(value) else f"{keyword} of no strings")
    return _File(label, uri, document, keywords <= _PROVEN_KEYWORDS)


def _check_references(file: _File, registry: Registry[Any]) -> None:
    """Follow every reference of a schema: the reference implementation would only on meeting it in an event."""
    root = DRAFT202012.create_resource(file.document)
    waiting = [(registry.resolver(file.uri), root)]
    while waiting:
        resolver, resource = waiting.pop()
        contents = resource.contents
        for keyword in ("$ref", "$dynamicRef"):
            if isinstance(contents, dict) and keyword in contents:
                try:
                    resolver.lookup(contents[keyword])
                except Unresolvable as error:
                    raise SchemaError(f"{file.label}: {keyword} {contents[keyword]} leads nowhere") from error
        waiting.extend((resolver.in_subresource(inner), inner) for inner in resource.subresources())


def _keywords(schema: Any) -> Iterator[tuple[str, Any]]:
    """Yield every keyword of a schema and of those inside it, with its value."""
    waiting = [schema]
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, dict):
            continue
        for keyword, value in schema.items():
            yield keyword, value
            if keyword in ("properties", "patternProperties", "$defs", "dependentSchemas"):
                waiting.extend(value.values())
            elif keyword not in ("const", "enum", "default", "examples"):
                waiting.extend(value if isinstance(value, list) else (value,))


def _are_strings(value: Any) -> bool:
    return all(isinstance(item, str) for item in (value if isinstance(value, list) else (value,)))
