"""Every setting of every process, read once from the environment (``MIDSTREAM_*``) and checked at start.

``docs/settings.md`` lists them; a test fails when one is missing there.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

KIB = 1024
MIB = 1024 * KIB

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(Exception):
    """A setting cannot be used; the message names the variable and what it takes."""


class Settings(BaseSettings):
    """The settings. Sizes are bytes, times milliseconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="MIDSTREAM_", frozen=True, extra="ignore")

    # Where things are
    home: Path = Field(
        Path(".midstream"), description="Folder of all local data: Kafka's log, ClickHouse's parts, registry, keys."
    )
    host: str = Field("127.0.0.1", description="Address that the collector and the api listen on.")
    port: Port = Field(8000, description="Port of the base URL: collector and api.")
    kafka: str = Field(
        "", description="Kafka bootstrap servers, `host:port,...`. Empty: the local Kafka that `make run` starts."
    )
    clickhouse: str = Field(
        "",
        description="ClickHouse, `http[s]://user:password@host:port/database`. Empty: the local engine that `make "
        "run` starts.",
    )
    clickhouse_cluster: str = Field(
        "",
        description="Name of a ClickHouse cluster. Set: tables are Replicated with Distributed ones above. Empty: "
        "one server.",
    )
    registry: str = Field(
        "",
        description="SQLAlchemy URL of the registry (credentials, devices, academies). Empty: a SQLite "
        "file in the home.",
    )
    local_kafka_port: Port = Field(9092, description="Port of the local Kafka.")
    local_kafka_controller_port: Port = Field(9093, description="Port of the local Kafka's controller.")
    local_clickhouse_port: Port = Field(8123, description="HTTP port of the local ClickHouse engine.")
    validate_metrics_port: Port = Field(9101, description="Port of the metrics of `validate`, on 127.0.0.1.")
    store_metrics_port: Port = Field(9102, description="Port of the metrics of `store`, on 127.0.0.1.")
    devices_metrics_port: Port = Field(9103, description="Port of the metrics of `devices`, on 127.0.0.1.")
    jobs_metrics_port: Port = Field(9104, description="Port of the metrics of `jobs`, on 127.0.0.1.")

    # How it runs
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field("text", description="How a log line is written.")
    web_workers: int = Field(2, ge=1, le=64, description="Processes that serve the base URL on one machine.")
    worker_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="Name of this worker among those of its stage, unique. Named, it gets its partitions back after "
        "a restart without a rebalance.",
    )
    kafka_session_timeout_ms: int = Field(
        10_000,
        ge=6_000,
        le=300_000,
        description="How long Kafka waits for a silent worker before its partitions go to others.",
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
    partitions: int = Field(
        2,
        ge=1,
        le=1024,
        description="Partitions of each topic when it is created. The local default is small: each costs inserts.",
    )
    replication_factor: int = Field(1, ge=1, le=7, description="Replication factor of each topic when it is created.")

    # Collector
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
        0, ge=0, description="Requests a second and credential in one collector process; beyond it 429. 0: no limit."
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

    # Devices
    device_cache_entries: int = Field(
        50_000,
        ge=100,
        description="Devices whose key and flags one collector or api process remembers; others are read from the "
        "registry at each call.",
    )
    device_files: Path | None = Field(
        None,
        description="Folder of firmware and of what devices dump, which all processes of the api share. Empty: "
        "`device-files` in the home.",
    )
    max_device_file_bytes: int = Field(
        512 * MIB, ge=1 * KIB, description="Largest file for the devices of a model; larger is 413."
    )
    max_dump_bytes: int = Field(32 * MIB, ge=1 * KIB, description="Largest diagnostic file of a device; larger is 413.")
    dumps_bytes: int = Field(
        1024 * MIB, ge=1 * KIB, description="Bytes of all diagnostic files together; beyond it the oldest go."
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Base URL that devices are told. Empty: the one that they called.",
    )

    # Api
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
    trace_search_bytes: int = Field(
        32 * MIB, ge=1, description="Bytes on their way that one trace searches; beyond it the answer is not complete."
    )
    trace_search_ms: int = Field(
        2_000, ge=10, le=60_000, description="Longest search of what is on its way; after it a trace is not complete."
    )

    # Exhaust
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

    # Validate
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
    seal_rows: int = Field(10_000, ge=1, le=100_000, description="Rows that seal a block at once.")
    seal_bytes: int = Field(
        6 * MIB, ge=64 * KIB, le=64 * MIB, description="Bytes of event text that seal a block at once."
    )
    max_batches_in_flight: int = Field(
        1_000, ge=1, le=10_000, description="Batches that a `validate` worker takes up at once."
    )
    late_after_days: int = Field(400, ge=1, description="An event older than this at receipt is flagged late.")
    early_after_days: int = Field(
        1, ge=0, description="An event further in the future than this at receipt is flagged late."
    )

    # Store
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

    # Local ClickHouse engine
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

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def spool_folder(self) -> Path:
        """Folder of the spool in use."""
        return (self.spool or self.home / "spool").expanduser().absolute()

    @property
    def device_files_folder(self) -> Path:
        """Folder of device files in use."""
        return (self.device_files or self.home / "device-files").expanduser().absolute()

    @property
    def exhaust_folder(self) -> Path:
        """Folder of built days in use."""
        return (self.exhaust or self.home / "exhaust").expanduser().absolute()

    @property
    def kafka_servers(self) -> str:
        """Bootstrap servers in use."""
        return self.kafka or f"127.0.0.1:{self.local_kafka_port}"

    @property
    def clickhouse_dsn(self) -> str:
        """ClickHouse DSN in use."""
        return self.clickhouse or f"http://127.0.0.1:{self.local_clickhouse_port}/midstream"

    @property
    def registry_url(self) -> str:
        """SQLAlchemy URL of the registry in use."""
        return self.registry or f"sqlite:///{self.home / 'registry.db'}"

    @property
    def base_url(self) -> str:
        """Base URL of every API."""
        return f"http://{self.host}:{self.port}"


@cache
def get_settings() -> Settings:
    """Read the settings of this process, once.

    Raises:
        SettingsError: with one line a wrong setting.
    """
    return load_settings()


def load_settings() -> Settings:
    """Read the settings from the environment as it is now. See :func:`get_settings`."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"MIDSTREAM_{'_'.join(str(part) for part in issue['loc']).upper()}: {issue['msg']} (got {issue['input']!r})"
            for issue in error.errors()
        ]
        raise SettingsError("\n".join(lines)) from None
