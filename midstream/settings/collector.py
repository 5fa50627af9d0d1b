"""Settings: collector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

from midstream.settings.kinds import KIB, MIB


class Collector(BaseModel):
    """Collector: What a request meets before Kafka."""

    max_body_bytes: int = Field(1 * MIB, ge=1 * KIB, description="Largest body as sent; larger is 413.")
    max_inflated_bytes: int = Field(
        8 * MIB, ge=1 * KIB, le=8 * MIB, description="Largest body once inflated; larger is 413."
    )
    max_batch_events: int = Field(
        50_000,
        ge=1,
        description="Most elements of `events`; more is 413. A few kilobytes of gzip can hold millions of empty ones.",
    )
    max_in_flight_bytes: int = Field(
        64 * MIB, ge=1 * MIB, description="Bytes of bodies one collector process holds at once; beyond it 503."
    )
    max_in_flight_requests: int = Field(
        4096,
        ge=1,
        description="Requests that one collector process works on at once; beyond it 503. Under overload it takes up "
        "fewer by itself: see `midstream_backlog_limit_batches`.",
    )
    kafka_timeout_ms: int = Field(
        10_000, ge=100, description="Longest wait for Kafka to acknowledge; after it the batch goes into the spool."
    )
    spool: Path | None = Field(
        None,
        description="Folder where collectors keep batches while Kafka is away, on a disk of the machine itself. "
        "Empty: `spool` in the home.",
    )
    spool_max_bytes: int = Field(
        1024 * MIB,
        ge=4 * MIB,
        description="Bytes of batches that one collector process keeps on disk while Kafka is away; beyond it 503.",
    )
    spool_segment_bytes: int = Field(
        8 * MIB, ge=64 * KIB, le=256 * MIB, description="Size after which the spool goes on in another file."
    )
    body_timeout_ms: int = Field(30_000, ge=100, description="Longest wait for a request's whole body; after it 408.")
    drain_timeout_ms: int = Field(10_000, ge=0, description="Longest wait at shutdown for requests under way.")
    rate_limit_per_s: float = Field(
        0,
        ge=0,
        description="Requests a second and credential (a token's, or a "
        "device's key) in one process, the collector's and the api's apart; as many at once, at least one; beyond it "
        "429. 0: no limit.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",), description="Origins that browsers may post from, separated by commas; `*` for any."
    )
    forwarded_allow_ips: str = Field(
        "", description="Proxies whose X-Forwarded-For is believed, separated by commas. Empty: none."
    )
    jwt_public_keys: Path | None = Field(
        None, description="Folder of RS256 public keys, `<iss>.pem`. A token whose `iss` has a file there may be RS256."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
