"""Checkouts of Midstream: the tree as it is, an earlier revision, and what a later version could be."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from tests.support.pipeline import ROOT

PACKAGES = ("midstream", "ingest", "processors", "serve", "schemas", "deploy")
_LIBS = Path("deploy/local/kafka/libs")

COLOUR = "new"
"""What validate of a later version writes into its column ``colour``; of events without one the tables say ``none``."""


def copy_present(to: Path) -> Path:
    """Copy the tree as it is; return where it lies."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            to / package,
            ignore=lambda folder, names: {n for n in names if n in ("__pycache__", "libs")},
        )
    return _with_libs(to)


def why_no_revision(revision: str) -> str:
    """Return why a revision is not there; "" when it is."""
    found = subprocess.run(["git", "cat-file", "-e", f"{revision}^{{commit}}"], cwd=ROOT, capture_output=True)
    return "" if found.returncode == 0 else f"the history has no {revision}: a shallow clone, or no clone at all"


def unpack_revision(revision: str, to: Path) -> Path:
    """Unpack the tree of a revision; return where it lies."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", revision, *PACKAGES], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(to, filter="data")
    return _with_libs(to)


def make_later(root: Path) -> Path:
    """Make a copy of the tree what a later version could be.

    Its values of Kafka have fields more, so that their fingerprints are others; a migration adds a column, which
    validate writes.
    """
    avro = root / "schemas" / "avro"
    _add_field(avro, "telemetry.valid", {"name": "sealed_by", "type": "string", "default": ""})
    _add_field(avro, "telemetry.dead", {"name": "sealed_by", "type": "string", "default": ""})
    _add_field(avro, "collectors", {"name": "version", "type": "string", "default": ""})
    _edit(root / "processors/validate/seal.py", '"arrow": sink', '"sealed_by": "later",\n                "arrow": sink')
    _edit(
        root / "midstream/kafka/marks.py",
        "    oldest_ms: int = 0\n",
        '    oldest_ms: int = 0\n    version: str = "later"\n',
    )
    raw = '        pa.field("raw", _TEXT, nullable=False),\n'
    _edit(root / "midstream/columns.py", raw, f'{raw}        pa.field("colour", _TEXT),\n')
    texts = '            "raw": _utf8(self._raws),\n'
    _edit(
        root / "processors/validate/rows.py",
        texts,
        f'{texts}            "colour": _text(["{COLOUR}"] * len(self._raws)),\n',
    )
    migrations = root / "schemas" / "clickhouse"
    last = max(int(path.name[:4]) for path in migrations.glob("*.sql"))
    (migrations / f"{last + 1:04d}_colour.sql").write_text(
        "".join(
            f"ALTER TABLE @table({table}) ADD COLUMN IF NOT EXISTS colour String DEFAULT 'none';\n\n"
            f"@above({table}, ADD COLUMN IF NOT EXISTS colour String DEFAULT 'none');\n\n"
            for table in ("learning_events", "operational_events")
        )
    )
    return root


def _add_field(avro: Path, topic: str, field: dict[str, Any]) -> None:
    last = max(int(path.name.removeprefix(f"{topic}.v").removesuffix(".avsc")) for path in avro.glob(f"{topic}.v*"))
    schema = json.loads((avro / f"{topic}.v{last}.avsc").read_text())
    schema["fields"].append(field)
    (avro / f"{topic}.v{last + 1}.avsc").write_text(json.dumps(schema))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))


def _with_libs(root: Path) -> Path:
    """Give it Kafka's libraries, which are not in the history."""
    (root / _LIBS).symlink_to(ROOT / _LIBS)
    return root
