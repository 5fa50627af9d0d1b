"""Settings: kafka, ClickHouse and the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr


class Connections(BaseModel):
    """Stores: Kafka, ClickHouse and the registry, and how they are reached."""

    kafka: str = Field(
        "", description="Kafka bootstrap servers, `host:port,...`. Empty: the local Kafka that `make run` starts."
    )
    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext",
        description="How Kafka is reached: `ssl` encrypts and checks certificates, `sasl_...` logs in with user and "
        "password.",
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="How user and password are proven to Kafka."
    )
    kafka_user: str = Field("", description="User at Kafka.")
    kafka_password: SecretStr | None = Field(None, repr=False, description="Password of that user.")
    kafka_ca: Path | None = Field(
        None, description="PEM file of the CA that Kafka's certificates must come from. Empty: those of the system."
    )
    kafka_certificate: Path | None = Field(
        None, description="PEM file of our certificate, where Kafka asks clients for one (mutual TLS)."
    )
    kafka_key: Path | None = Field(
        None, description="PEM file of its key, without a passphrase; others must not read it."
    )
    clickhouse: str = Field(
        "",
        repr=False,
        description="ClickHouse, `http[s]://user:password@host:port/database`. Empty: the local engine that `make "
        "run` starts.",
    )
    clickhouse_ca: Path | None = Field(
        None,
        description="PEM file of the CA that ClickHouse's certificate must come from. Empty: those of the system.",
    )
    clickhouse_cluster: str = Field(
        "",
        description="Name of a ClickHouse cluster. Set: tables are Replicated with Distributed ones above. Empty: "
        "one server.",
    )
    registry: str = Field(
        "",
        repr=False,
        description="SQLAlchemy URL of the registry (credentials, devices, academies). Empty: a SQLite "
        "file in the home.",
    )
    registry_key: Path | None = Field(
        None,
        description="File of the key under which the registry's secrets are encrypted, the same for all processes. "
        "Empty: `registry.key` in the home, which `midstream migrate` makes for an empty registry.",
    )
    kafka_session_timeout_ms: int = Field(
        10_000,
        ge=6_000,
        le=300_000,
        description="How long Kafka waits for a silent worker before its partitions go to others.",
    )
    partitions: int = Field(
        1,
        ge=1,
        le=1024,
        description="Partitions of each topic when it is created. No stage can have more workers than that; each costs "
        "inserts, so one machine does best with one.",
    )
    replication_factor: int = Field(1, ge=1, le=7, description="Replication factor of each topic when it is created.")
