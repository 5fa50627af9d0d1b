"""Settings: one machine."""

from __future__ import annotations

from pydantic import BaseModel, Field

from midstream.settings.kinds import MIB, Port


class Local(BaseModel):
    """One machine: Kafka and the ClickHouse engine that `make run` starts."""

    local_kafka_port: Port = Field(9092, description="Port of the local Kafka.")
    local_kafka_controller_port: Port = Field(9093, description="Port of the local Kafka's controller.")
    local_clickhouse_port: Port = Field(8123, description="HTTP port of the local ClickHouse engine.")
    engine_threads: int = Field(8, ge=1, le=128, description="Queries that the local ClickHouse engine runs at once.")
    engine_queue: int = Field(
        32, ge=0, le=10_000, description="Queries that wait for the local ClickHouse engine; beyond it 503."
    )
    engine_memory_bytes: int = Field(
        4 * 1024 * MIB, ge=512 * MIB, description="Memory that the local ClickHouse engine may use."
    )
    engine_query_timeout_ms: int = Field(
        300_000,
        ge=1_000,
        description="Longest run of a query in the local ClickHouse engine, where the query does not say.",
    )
