"""Settings: syncs and erasures."""

from __future__ import annotations

from pydantic import BaseModel, Field

from midstream.settings.kinds import KIB, MIB


class Sync(BaseModel):
    """Syncs and erasures: Jobs, and the sources that they read."""

    sync_max_ids: int = Field(
        100_000, ge=1, le=1_000_000, description="Most ids that one sync names; more is refused with UOS_0028."
    )
    sync_max_bytes: int = Field(
        8 * MIB, ge=1 * KIB, le=64 * MIB, description="Largest body of a sync, once inflated; larger is 413."
    )
    sync_settle_ms: int = Field(
        120_000,
        ge=1_000,
        le=3_600_000,
        description="Longest wait of a sync until `store` has stored the events that it had before the sync; what it "
        "stores later is seen to minutes afterwards.",
    )
    sync_query_timeout_ms: int = Field(
        300_000,
        ge=1_000,
        le=86_400_000,
        description="Longest wait for one answer of ClickHouse when stored events are corrected or erased.",
    )
    dimension_sources: str = Field(
        "",
        description="TOML file that says where users, content and other objects come from: see dimension-sources.md. "
        "Empty: a sync takes what was pushed.",
    )
    sync_staging_bytes: int = Field(
        4 * 1024 * MIB,
        ge=1 * MIB,
        description="Bytes on the disk of the home that the rows of one read of a source may take; beyond it the sync "
        "fails.",
    )
    sync_staging_rows: int = Field(
        10_000_000,
        ge=1_000,
        description="Rows that one read of a source may give; beyond it the sync fails. Each takes 16 bytes of memory, "
        "some 50 while they are sorted.",
    )
    sync_min_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Least share of the known objects of a type that a full read of its source must hold. With less, "
        "or with none, a sync deletes nothing and fails, unless it is forced.",
    )
