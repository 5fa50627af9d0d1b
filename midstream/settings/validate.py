"""Settings: validate."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from midstream.settings.kinds import KIB, MIB


class Validate(BaseModel):
    """Validate: The workers that check events."""

    schemas: Path | None = Field(
        None,
        description="Folder of a deployment's own event schemas, `<eid in lower case>.json`, beside the "
        "specification's.",
    )
    max_event_bytes: int = Field(
        512 * KIB, ge=1 * KIB, le=2 * MIB, description="Largest event; larger becomes a dead letter EVENT_TOO_LARGE."
    )
    max_event_depth: int = Field(
        64, ge=4, le=250, description="Deepest nesting of an event; deeper becomes a dead letter TOO_DEEP."
    )
    seal_interval_ms: int = Field(
        250, ge=1, le=60_000, description="Longest time an event waits for its block to be sealed."
    )
    seal_rows: int = Field(20_000, ge=1, le=100_000, description="Rows that seal a block at once.")
    seal_bytes: int = Field(
        8 * MIB, ge=64 * KIB, le=64 * MIB, description="Bytes of event text that seal a block at once."
    )
    max_batches_in_flight: int = Field(
        1_000, ge=1, le=10_000, description="Batches that a `validate` worker takes up at once."
    )
    late_after_days: int = Field(400, ge=1, description="An event older than this at receipt is flagged late.")
    early_after_days: int = Field(
        1, ge=0, description="An event further in the future than this at receipt is flagged late."
    )
