"""docs/apps.md says what the collector does."""

import re
from pathlib import Path

from ingest.head import MAX_FACT_CHARS
from ingest.replies import ErrorCode
from midstream.settings import MIB, Settings

PAGE = (Path(__file__).parents[3] / "docs" / "apps.md").read_text("utf-8")


def test_every_error_code_stands_there_with_its_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `([A-Z_]+)` \| .+ \| .+ \|$", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted((str(int(code.value.status)), code.name) for code in ErrorCode)


def test_limits_are_the_defaults() -> None:
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    assert (defaults["max_body_bytes"], defaults["max_inflated_bytes"]) == (1 * MIB, 8 * MIB)
    assert f"More than 1 MiB as sent, 8 MiB inflated, or {defaults['max_batch_events']:,} events" in PAGE
    assert defaults["body_timeout_ms"] == 30_000
    assert "in time (30 s)" in PAGE
    assert f"up to {MAX_FACT_CHARS} characters" in PAGE
