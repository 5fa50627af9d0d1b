"""What was released stays as it is: ``python -m schemas.release [VERSION]``.

``schemas/released.json`` names, for each version, the Avro schemas and ClickHouse migrations that it brought, each with
the SHA-256 of its file, and the columns of ``telemetry.valid`` blocks. With a version, the command adds what has come
since the one before; without, it only checks. Exit code 1: something is wrong, named line by line.

The rules are those of docs/upgrading.md: old and new run side by side in any order, so each version of a topic's schema
reads what each other one writes.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
from fastavro.read import SchemaResolutionError
from fastavro.utils import generate_many

from midstream.columns import VALID

FOLDER = Path(__file__).parent
RELEASED = "released.json"
_SAMPLES = 300
"""Records made of each schema by chance: so many that each symbol and each branch of a union is among them."""

Released = dict[str, dict[str, Any]]
"""By version: ``files`` (SHA-256 by path) and ``columns`` (type by name)."""


def read_released(folder: Path) -> Released:
    """Return what ``folder`` says was released; nothing where it says nothing."""
    path = folder / RELEASED
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def present_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each Avro schema and migration, by its path in ``folder``."""
    paths = sorted([*folder.glob("avro/*.avsc"), *folder.glob("clickhouse/*.sql")])
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def find_problems(folder: Path, columns: pa.Schema) -> list[str]:
    """Return in words what must not be released like this; each says what to do.

    Args:
        folder: like ``schemas/``.
        columns: of rows of ``telemetry.valid``.
    """
    released = read_released(folder)
    return [*_changed_files(folder, released), *_changed_columns(released, columns), *_incompatible(folder)]


def _changed_files(folder: Path, released: Released) -> Iterator[str]:
    present = present_files(folder)
    for version, what in released.items():
        for name, digest in what["files"].items():
            if present.get(name) == digest:
                continue
            became = "is another now" if name in present else "is gone"
            topic = re.fullmatch(r"avro/(.+)\.v\d+\.avsc", name)
            new = f"avro/{topic[1]}.v<N+1>.avsc" if topic else "a migration with the next number"
            yield f"schemas/{name} was released with {version} and {became}: bring it back, and add {new}"
    known = {name for what in released.values() for name in what["files"]}
    last = max((name for name in known if name.startswith("clickhouse/")), default="")
    for name in present:
        if name.startswith("clickhouse/") and name not in known and name < last:
            yield f"schemas/{name} comes before {last}, which was released: give it the next number"


def _changed_columns(released: Released, columns: pa.Schema) -> Iterator[str]:
    before: dict[str, str] = {name: type_ for what in released.values() for name, type_ in what["columns"].items()}
    for field in columns:
        if field.name not in before:
            if before and not field.nullable:
                yield f"column {field.name} of telemetry.valid is new: blocks without it are read too, make it nullable"
        elif str(field.type) != before[field.name]:
            yield (
                f"column {field.name} of telemetry.valid was released as {before[field.name]}: "
                "keep its type, and add another column"
            )


def _incompatible(folder: Path) -> Iterator[str]:
    by_topic: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "avro").glob("*.avsc")):
        topic = re.sub(r"\.v\d+\.avsc$", "", path.name)
        by_topic.setdefault(topic, {})[path.name] = fastavro.parse_schema(json.loads(path.read_text("utf-8")))
    for versions in by_topic.values():
        for writer, reader in permutations(versions, 2):
            if why := why_unreadable(versions[writer], versions[reader]):
                yield (
                    f"schemas/avro/{reader} cannot read what {writer} writes: {why}. Give fields that are added or "
                    "removed a default, keep types, and add no symbols to an enum"
                )


def why_unreadable(writer: Any, reader: Any) -> str:
    """Return what happens when records of one parsed schema are read as another; "" when all can be."""
    for record in generate_many(writer, _SAMPLES):
        body = io.BytesIO()
        fastavro.schemaless_writer(body, writer, record)
        body.seek(0)
        try:
            fastavro.schemaless_reader(body, writer, reader)
        except (SchemaResolutionError, ValueError, TypeError, LookupError, EOFError) as error:
            return f"{type(error).__name__}: {error}"
    return ""


def release(folder: Path, columns: pa.Schema, version: str) -> None:
    """Note what has come since the last release as brought by ``version``.

    Raises:
        ValueError: that version was released, with something else.
    """
    released = read_released(folder)
    known = {name for number, what in released.items() if number != version for name in what["files"]}
    files = {name: digest for name, digest in present_files(folder).items() if name not in known}
    brought: Mapping[str, Any] = {"files": files, "columns": {field.name: str(field.type) for field in columns}}
    if version in released and released[version] != brought:
        raise ValueError(f"{version} was released with something else: take the next version")
    text = json.dumps({**released, version: brought}, indent=2, ensure_ascii=False)
    (folder / RELEASED).write_text(text + "\n", "utf-8")


def main(arguments: list[str]) -> int:
    """Check, and with a version note it; return the exit code."""
    if len(arguments) > 1 or any(not re.fullmatch(r"\d+\.\d+\.\d+", version) for version in arguments):
        print("usage: python -m schemas.release [VERSION]", file=sys.stderr)
        return 2
    problems = find_problems(FOLDER, VALID)
    try:
        for version in arguments if not problems else []:
            release(FOLDER, VALID, version)
    except ValueError as error:
        problems.append(str(error))
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
