import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from midstream.backup.errors import BackupError
from midstream.backup.manifest import (
    FORMAT,
    MANIFEST,
    ClickHousePart,
    KafkaPart,
    Manifest,
    Position,
    RegistryPart,
    Seen,
    check_files,
    read_manifest,
    sum_files,
    write_manifest,
)

MADE = Manifest(
    format=FORMAT,
    id="20261122T190000Z-0",
    made_at_ms=1,
    program="0.1.0",
    key_fingerprint="ab",
    has_key=False,
    clickhouse=ClickHousePart("", "", "26.9", "midstream", 12, {"learning_events": 3}, [], {"complete": 5}),
    registry=RegistryPart("sqlite", "registry.db", "0007", {"credentials": 1}),
    kafka=KafkaPart([Seen("telemetry.raw", 0, 0, 9, 7)], [Position("midstream-store", "telemetry.valid", 0, 4)]),
    files={},
)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    (folder / "clickhouse" / "data").mkdir(parents=True)
    (folder / "clickhouse" / "data" / "part.bin").write_bytes(b"x" * 100_000)
    (folder / "registry.db").write_bytes(b"registry")
    files = sum_files(folder, lambda _: None)
    write_manifest(folder, msgspec.structs.replace(MADE, files=files))
    return folder


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(BackupError) as caught:
        call()
    assert str(caught.value)
    return caught.value.code


def test_it_is_read_as_it_was_written(backup: Path) -> None:
    found = read_manifest(backup)
    assert set(found.files) == {"clickhouse/data/part.bin", "registry.db"}
    assert msgspec.structs.replace(found, files={}, checksum="") == MADE
    read: list[int] = []
    check_files(backup, found, read.append)
    assert sum(read) == 100_008
    assert (backup / MANIFEST).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_was_not_ended_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / f"{MANIFEST}.new").write_text("{}")
    assert code_of(lambda: read_manifest(tmp_path)) == "NO_BACKUP"
    assert code_of(lambda: read_manifest(tmp_path / "nowhere")) == "NO_BACKUP"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b'"offset": 4', b'"offset": 5'),
        lambda text: text.replace(b'"id"', b'"ie"'),
        lambda text: b"\xff" + text,
    ],
)
def test_a_damaged_manifest_is_refused(backup: Path, damage: Callable[[bytes], bytes]) -> None:
    path = backup / MANIFEST
    text = path.read_bytes()
    assert damage(text) != text
    path.write_bytes(damage(text))
    assert code_of(lambda: read_manifest(backup)) == "DAMAGED"


def test_one_of_a_later_format_is_told_from_a_damaged_one(backup: Path) -> None:
    (backup / MANIFEST).write_text(json.dumps({"format": FORMAT + 1, "other": "fields"}))
    assert code_of(lambda: read_manifest(backup)) == "NEWER_BACKUP"


@pytest.mark.parametrize("name", ["clickhouse/data/part.bin", "registry.db"])
def test_a_file_that_is_damaged_or_gone_is_named(backup: Path, name: str) -> None:
    manifest, path = read_manifest(backup), backup / name
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"!", content + b"!"):
        path.write_bytes(damaged)
        with pytest.raises(BackupError, match=name) as caught:
            check_files(backup, manifest, lambda _: None)
        assert caught.value.code == "DAMAGED"
    path.unlink()
    assert code_of(lambda: check_files(backup, manifest, lambda _: None)) == "DAMAGED"
