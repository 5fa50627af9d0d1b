"""What was released is never changed, and every version of a topic's schema reads every other one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from midstream.columns import VALID
from schemas import release as module
from schemas.release import FOLDER, find_problems, main, present_files, read_released, release


def test_nothing_that_was_released_has_changed() -> None:
    """A failure here says what to do."""
    assert find_problems(FOLDER, VALID) == []


def test_the_first_release_has_what_there_was() -> None:
    first = read_released(FOLDER)["0.1.0"]
    assert {"avro/telemetry.dead.v1.avsc", "avro/telemetry.valid.v1.avsc", "clickhouse/0001_events.sql"} <= set(
        first["files"]
    )
    assert first["columns"]["mid_hash"] == "uint64"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in present_files(FOLDER):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(FOLDER / name, tmp_path / name)
    shutil.copy(FOLDER / module.RELEASED, tmp_path)
    return tmp_path


def change(path: Path, edit: Callable[[dict[str, Any]], None], to: str) -> None:
    schema = json.loads(path.read_text())
    edit(schema)
    (path.parent / to).write_text(json.dumps(schema))


@pytest.mark.parametrize("name", ["avro/dimensions.v1.avsc", "clickhouse/0003_dimensions.sql"])
def test_a_released_file_that_is_another_or_gone_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text((folder / name).read_text() + "\n")
    [problem] = find_problems(folder, VALID)
    assert problem.startswith(f"schemas/{name} was released with 0.1.0 and is another now: bring it back, and add ")
    (folder / name).unlink()
    [problem] = find_problems(folder, VALID)
    assert "is gone" in problem


def test_a_migration_cannot_come_before_a_released_one(folder: Path) -> None:
    (folder / "clickhouse" / "0002_other.sql").write_text("CREATE TABLE IF NOT EXISTS a (b UInt8) ENGINE = Memory;\n")
    [problem] = find_problems(folder, VALID)
    assert "0002_other.sql comes before" in problem


def add_field(**field: Any) -> Callable[[dict[str, Any]], None]:
    return lambda schema: schema["fields"].append(field)


COMPATIBLE = {
    "a field with a default": add_field(name="colour", type="string", default=""),
    "a field that may be null": add_field(name="colour", type=["null", "string"], default=None),
    "words": lambda schema: schema.update(doc="Other words."),
}


@pytest.mark.parametrize("edit", COMPATIBLE.values(), ids=COMPATIBLE)
def test_what_both_sides_can_read_may_be_added(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    change(folder / "avro" / "dimensions.v1.avsc", edit, "dimensions.v2.avsc")
    assert find_problems(folder, VALID) == []


def in_letters(edit: Callable[[list[Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda schema: edit(schema["fields"][0]["type"]["items"]["fields"])


INCOMPATIBLE = {
    "a field without a default": (
        in_letters(lambda fields: fields.append({"name": "colour", "type": "string"})),
        {("v3", "v1"), ("v3", "v2")},
    ),
    "a field less that has none": (in_letters(lambda fields: fields.pop(1)), {("v1", "v3"), ("v2", "v3")}),
    "another type": (
        in_letters(lambda fields: fields[1].update(type="int")),
        {("v3", "v1"), ("v3", "v2"), ("v1", "v3"), ("v2", "v3")},
    ),
    "a wider type": (
        in_letters(lambda fields: fields[9].update(type="long")),
        {("v1", "v3"), ("v2", "v3")},
    ),
    "a symbol more": (
        in_letters(lambda fields: fields[0]["type"]["symbols"].append("device")),
        {("v1", "v3"), ("v2", "v3")},
    ),
    "another name": (
        in_letters(lambda fields: fields[0]["type"].update(name="Reach")),
        {("v3", "v1"), ("v3", "v2"), ("v1", "v3"), ("v2", "v3")},
    ),
}


@pytest.mark.parametrize(("edit", "pairs"), INCOMPATIBLE.values(), ids=INCOMPATIBLE)
def test_what_one_side_cannot_read_is_named(
    folder: Path, edit: Callable[[dict[str, Any]], None], pairs: set[tuple[str, str]]
) -> None:
    change(folder / "avro" / "telemetry.dead.v2.avsc", edit, "telemetry.dead.v3.avsc")
    found = find_problems(folder, VALID)
    named = {
        (reader, writer)
        for reader in ("v1", "v2", "v3")
        for writer in ("v1", "v2", "v3")
        if any(
            f"telemetry.dead.{reader}.avsc cannot read what telemetry.dead.{writer}.avsc writes" in problem
            for problem in found
        )
    }
    assert named == pairs
    assert len(found) == len(pairs)


def test_a_column_keeps_its_type_and_a_new_one_is_nullable(folder: Path) -> None:
    assert find_problems(folder, VALID.append(pa.field("colour", pa.string()))) == []
    [problem] = find_problems(folder, VALID.append(pa.field("colour", pa.string(), nullable=False)))
    assert "column colour" in problem
    assert "nullable" in problem
    at = VALID.get_field_index("eid")
    [problem] = find_problems(folder, VALID.set(at, pa.field("eid", pa.large_string(), nullable=False)))
    assert "column eid" in problem
    assert find_problems(folder, VALID.remove(at)) == []


def test_a_release_brings_what_is_new(folder: Path) -> None:
    change(folder / "avro" / "dimensions.v1.avsc", COMPATIBLE["words"], "dimensions.v2.avsc")
    columns = VALID.append(pa.field("colour", pa.string()))
    release(folder, columns, "0.2.0")
    brought = read_released(folder)["0.2.0"]
    assert list(brought["files"]) == ["avro/dimensions.v2.avsc"]
    assert "colour" in brought["columns"]
    release(folder, columns, "0.2.0")
    with pytest.raises(ValueError, match=r"take the next version"):
        release(folder, VALID, "0.2.0")
    (folder / "avro" / "dimensions.v2.avsc").unlink()
    assert any("was released with 0.2.0 and is gone" in problem for problem in find_problems(folder, columns))


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "FOLDER", folder)
    assert main([]) == 0
    assert main(["1"]) == 2
    assert main(["0.1.1"]) == 0
    assert read_released(folder)["0.1.1"]["files"] == {}
    (folder / "avro" / "dimensions.v1.avsc").unlink()
    assert main(["0.1.2"]) == 1
    assert "dimensions.v1.avsc was released" in capsys.readouterr().err
    assert "0.1.2" not in read_released(folder)
