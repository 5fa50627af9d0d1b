"""Settings: exhaust."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from midstream.settings.kinds import MIB


class Exhaust(BaseModel):
    """Exhaust: Days of datasets for partners."""

    exhaust: Path | None = Field(
        None,
        description="Folder of the days of datasets that were built, which all processes of the api on a machine "
        "share. Empty: `exhaust` in the home.",
    )
    exhaust_bytes: int = Field(
        20 * 1024 * MIB,
        ge=1 * MIB,
        description="Bytes of built days that are kept; beyond it those go that were not asked for longest.",
    )
    exhaust_builders: int = Field(
        1, ge=1, le=64, description="Days that are built at once on a machine, each by a process of low priority."
    )
    exhaust_wait_ms: int = Field(
        25_000,
        ge=100,
        le=600_000,
        description="Longest wait of a call for days that must be built first (a manifest, a part of a download); "
        "after it 503, and the days go on being built.",
    )
    exhaust_request_bytes: int = Field(
        5 * 1024 * MIB,
        ge=1 * MIB,
        description="Bytes of all archives that were built at the request of one licence and have not expired.",
    )
    exhaust_request_hours: float = Field(
        72, gt=0, le=1_440, description="How long an archive that was built at a request can be downloaded."
    )
