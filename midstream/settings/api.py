"""Settings: api."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from midstream.settings.kinds import KIB, MIB


class Api(BaseModel):
    """Api: What it takes, and the objects that events refer to."""

    max_assignment_bytes: int = Field(
        1280 * KIB,
        ge=1 * KIB,
        le=4 * MIB,
        description="Largest body of a learner's record, once inflated; larger is 413. It holds a telemetry of 1 MiB.",
    )
    max_dimension_bytes: int = Field(
        1 * MIB, ge=1 * KIB, le=4 * MIB, description="Largest JSON text of one object's attributes; larger is 413."
    )
    ip_locations: Path | None = Field(
        None,
        description="File in MaxMind's format (.mmdb, as GeoIP2 or GeoLite2 City) by which a device's internet address "
        "becomes its state and district. To replace it, rename another over it. Empty: no locations from addresses.",
    )
    dimension_history: Literal["corrected", "as_was"] = Field(
        "corrected",
        description="What a sync does to stored events. `corrected`: all events of an object get its present copy. "
        "`as_was`: an event keeps the copy that it was stored with; only one that was missing or stale is filled in.",
    )
    dimension_repair_ms: int = Field(
        30_000,
        ge=1_000,
        le=86_400_000,
        description="Within which time events that were stored before one of their objects was known get its copy once "
        "it is. While a sync is under way it may be longer by one of its steps.",
    )
    trace_search_bytes: int = Field(
        32 * MIB, ge=1, description="Bytes on their way that one trace searches; beyond it the answer is not complete."
    )
    trace_search_ms: int = Field(
        2_000, ge=10, le=60_000, description="Longest search of what is on its way; after it a trace is not complete."
    )
