"""Settings: where things are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, field_validator

from midstream.settings.kinds import Port


class Places(BaseModel):
    """Places: Folders, addresses and ports of our own."""

    home: Path = Field(
        Path(".midstream"), description="Folder of all local data: Kafka's log, ClickHouse's parts, registry, keys."
    )
    host: str = Field("127.0.0.1", description="Address that the collector and the api listen on.")
    port: Port = Field(8000, description="Port of the base URL: collector and api.")
    validate_metrics_port: Port = Field(9101, description="Port of the metrics of `validate`, and of its `/health`.")
    store_metrics_port: Port = Field(9102, description="Port of the metrics of `store`, and of its `/health`.")
    devices_metrics_port: Port = Field(9103, description="Port of the metrics of `devices`, and of its `/health`.")
    jobs_metrics_port: Port = Field(9104, description="Port of the metrics of `jobs`, and of its `/health`.")
    metrics_host: str = Field(
        "127.0.0.1",
        description="Address of these four ports. In a container `0.0.0.0`, so that Prometheus and probes reach them.",
    )

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()
