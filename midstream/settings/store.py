"""Settings: store."""

from __future__ import annotations

from pydantic import BaseModel, Field

from midstream.settings.kinds import MIB


class Store(BaseModel):
    """Store: The workers that store events, and how long events are kept."""

    dedupe_memory_bytes: int = Field(
        256 * MIB, ge=1 * MIB, description="Bound of the memory a `store` worker holds for mids."
    )
    dedupe_recent: int = Field(
        100_000, ge=1_000, description="Newest mids a `store` worker holds whole, with the arrival that stored each."
    )
    dimension_cache_entries: int = Field(200_000, ge=100, description="Dimension rows a `store` worker holds.")
    dimension_cache_bytes: int = Field(
        256 * MIB, ge=1 * MIB, description="Bound of the memory that these rows take; few large ones are held then."
    )
    dimension_negative_ms: int = Field(
        30_000, ge=100, description="How long a missing dimension is believed to be missing."
    )
    max_erased_ids: int = Field(
        1_000_000,
        ge=1,
        description="Erased users that a `store` worker knows, some 120 bytes each. Beyond it, it stores nothing.",
    )
    clickhouse_timeout_ms: int = Field(20_000, ge=1_000, description="Longest wait for one answer of ClickHouse.")
    insert_tries: int = Field(
        5,
        ge=1,
        le=100,
        description="Tries of one insert, with the identical body, before the worker exits. "
        "An event that ClickHouse refuses for its content is parked in `rejects` at once.",
    )
    retention_learning_days: int = Field(
        0, ge=0, description="Days that learning events are kept after receipt. 0: for ever."
    )
    retention_operational_days: int = Field(
        90, ge=0, description="Days that logs, errors and metrics are kept after receipt. 0: for ever."
    )
