"""Settings: how it runs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Running(BaseModel):
    """Processes: What all of them have in common."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="How a log line is written.")
    web_workers: int = Field(2, ge=1, le=64, description="Processes that serve the base URL on one machine.")
    worker_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Name of this worker among those of its stage, unique. Named, it gets its partitions back after "
        "a restart without a rebalance.",
    )
    record_timeout_ms: int = Field(
        30_000,
        ge=1_000,
        le=600_000,
        description="Longest time a worker may work on a record without waiting for Kafka or ClickHouse; then it ends "
        "itself, which counts as a try of that record.",
    )
    record_tries: int = Field(
        5,
        ge=2,
        le=100,
        description="Tries of a record at which a worker fails or dies, counted over restarts. After them, the event "
        "at fault is parked in `rejects` as POISON.",
    )
