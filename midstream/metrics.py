"""Every metric of every process, declared once. Labels are few and low in cardinality; updates are per batch or
block."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Every process
BUILD_INFO = Gauge(
    "midstream_build_info", "1, of the version that this process runs.", ["version"], multiprocess_mode="livemax"
)
PROCESS_START_SECONDS = Gauge(
    "midstream_process_start_seconds",
    "When this process started (epoch); of several behind one address, the newest.",
    multiprocess_mode="livemax",
)
DISK_FREE_BYTES = Gauge(
    "midstream_disk_free_bytes",
    "Free bytes of a disk: of the spool and the home on this machine, and `clickhouse/<name>` as ClickHouse says.",
    ["disk"],
    multiprocess_mode="livemin",
)
DISK_TOTAL_BYTES = Gauge(
    "midstream_disk_total_bytes", "Bytes of a disk, free or not.", ["disk"], multiprocess_mode="livemin"
)

# Collector
COLLECTOR_ACCEPTING = Gauge(
    "midstream_collector_accepting",
    "Whether a batch posted now would be durable: 1, or 0; of several processes behind one address, the worst.",
    multiprocess_mode="livemin",
)
REQUESTS = Counter("midstream_requests", "Telemetry requests, by HTTP status.", ["status"])
REQUEST_SECONDS = Histogram("midstream_request_seconds", "Time from a request's head to its reply.", buckets=_SECONDS)
RECEIVED_BATCHES = Counter("midstream_received_batches", "Batches made durable.")
RECEIVED_EVENTS = Counter("midstream_received_events", "Elements of `events` in batches made durable.")
RECEIVED_BYTES = Counter("midstream_received_bytes", "Bytes of bodies made durable, as sent.")
IN_FLIGHT_BYTES = Gauge(
    "midstream_in_flight_bytes", "Bytes of bodies held by the collector now.", multiprocess_mode="livesum"
)
RATE_LIMIT_BUCKETS = Gauge(
    "midstream_rate_limit_buckets",
    "Credentials whose requests are counted now, at most 10,000 for each kind in a process.",
    multiprocess_mode="livesum",
)
IN_FLIGHT_REQUESTS = Gauge(
    "midstream_in_flight_requests", "Telemetry requests that the collector works on now.", multiprocess_mode="livesum"
)
BACKLOG_BATCHES = Gauge(
    "midstream_backlog_batches", "Batches that wait to become durable now.", multiprocess_mode="livesum"
)
BACKLOG_LIMIT_BATCHES = Gauge(
    "midstream_backlog_limit_batches",
    "How many may wait; beyond them requests are answered 503. It shrinks while Kafka is slower than what comes.",
    multiprocess_mode="livesum",
)
WAITING_REFUSALS = Gauge(
    "midstream_waiting_refusals",
    "Requests refused for overload whose answer waits: 500 a second and process are given.",
    multiprocess_mode="livesum",
)
CREDENTIAL_CACHE_ENTRIES = Gauge(
    "midstream_credential_cache_entries", "Verified tokens remembered.", multiprocess_mode="livesum"
)
PRODUCER_REBUILDS = Counter(
    "midstream_producer_rebuilds", "Kafka producers given up after a fatal error and made anew."
)
SPOOL_BYTES = Gauge(
    "midstream_spool_bytes", "Bytes of batches in the spool, not yet in Kafka.", multiprocess_mode="livesum"
)
SPOOL_BATCHES = Gauge("midstream_spool_batches", "Batches in the spool, not yet in Kafka.", multiprocess_mode="livesum")
SPOOL_OLDEST_AGE_SECONDS = Gauge(
    "midstream_spool_oldest_age_seconds",
    "Age (by receipt) of the oldest batch in the spool; 0 when it is empty.",
    multiprocess_mode="livemax",
)
SPOOL_LIMIT_BYTES = Gauge(
    "midstream_spool_limit_bytes", "Bytes that the spool takes at the most.", multiprocess_mode="livesum"
)
SPOOLED_BATCHES = Counter("midstream_spooled_batches", "Batches written to the spool.")
SPOOL_DRAINED_BATCHES = Counter(
    "midstream_spool_drained_batches", "Batches of the spool that Kafka acknowledged, each time it did."
)
SPOOL_REFUSED_BATCHES = Counter(
    "midstream_spool_refused_batches", "Batches that the spool did not take: full, or the disk failed."
)
SPOOL_DAMAGED_BYTES = Counter(
    "midstream_spool_damaged_bytes",
    "Bytes of the spool that could not be read, or that Kafka refused, and were set aside.",
)

# Devices, in collector and api
DEVICE_REPORTS = Counter("midstream_device_reports", "Reports of devices, by outcome.", ["outcome"])
DEVICE_CACHE_ENTRIES = Gauge(
    "midstream_device_cache_entries", "Devices whose key and flags are remembered.", multiprocess_mode="livesum"
)
DEVICE_CACHE_MISSES = Counter("midstream_device_cache_misses", "Times that a device was read from the registry.")

# Api
DIMENSION_ROWS = Counter("midstream_dimension_rows", "Dimension rows pushed, by type and outcome.", ["type", "outcome"])
DIMENSION_IN_FLIGHT_BYTES = Gauge(
    "midstream_dimension_in_flight_bytes", "Bytes of dimension rows on their way to Kafka.", multiprocess_mode="livesum"
)
DEVICE_REGISTRATIONS = Counter(
    "midstream_device_registrations", "Registrations of devices at `/v3/device/register`, by outcome.", ["outcome"]
)
DEVICE_LOOKUPS_WAITING = Gauge(
    "midstream_device_lookups_waiting", "Devices whose row waits to be read.", multiprocess_mode="livesum"
)
DEVICE_ROWS_UNSEEN = Gauge(
    "midstream_device_rows_unseen",
    "Rows of devices that registered, remembered until ClickHouse has had them for some seconds.",
    multiprocess_mode="livesum",
)
DEVICE_ATTRIBUTES_RESTORED = Counter(
    "midstream_device_attributes_restored",
    "Attributes of devices written again, as another process had registered the device at the same time without them.",
)
IP_LOOKUPS = Counter("midstream_ip_lookups", "Internet addresses looked up in the file of locations.", ["outcome"])
IP_LOCATIONS_BUILT_SECONDS = Gauge(
    "midstream_ip_locations_built_seconds",
    "When the file of IP locations in use was made (epoch).",
    multiprocess_mode="livemin",
)
ACADEMY_CACHE_ENTRIES = Gauge(
    "midstream_academy_cache_entries",
    "What is remembered for assignment telemetry: of tokens, standings in academies, users and records.",
    ["kind"],
    multiprocess_mode="livesum",
)
ERASED_CACHE_ENTRIES = Gauge(
    "midstream_erased_cache_entries", "Erased objects remembered, whose rows are refused.", multiprocess_mode="livesum"
)
EXHAUST_CACHE_ENTRIES = Gauge(
    "midstream_exhaust_cache_entries",
    "What is remembered for downloads of datasets: of licences, datasets and rights.",
    ["kind"],
    multiprocess_mode="livesum",
)
VALIDATIONS = Counter("midstream_validations", "Bodies judged for `POST /v1/validate`.")
TRACES = Counter("midstream_traces", "Mids traced, by verdict.", ["verdict"])
TRACE_SECONDS = Histogram("midstream_trace_seconds", "Time of one trace, of one mid or many.", buckets=_SECONDS)
TRACES_WAITING = Gauge("midstream_traces_waiting", "Traces under way, or waiting to be.", multiprocess_mode="livesum")

# Assignments, in the api
ASSIGNMENT_WRITES = Counter("midstream_assignment_writes", "Writes of learners' records, by outcome.", ["outcome"])
ASSIGNMENT_SECONDS = Histogram(
    "midstream_assignment_write_seconds",
    "Time of a write of a learner's record, from its body to its reply.",
    buckets=_SECONDS,
)
ASSIGNMENTS_WAITING = Gauge(
    "midstream_assignments_waiting",
    "Writes and reads of learners' records that wait to go to ClickHouse.",
    ["kind"],
    multiprocess_mode="livesum",
)
ASSIGNMENTS_UNPUBLISHED = Gauge(
    "midstream_assignments_unpublished",
    "Stored writes of learners' records that wait in memory to be published.",
    multiprocess_mode="livesum",
)
ASSIGNMENTS_PUBLISHED = Counter(
    "midstream_assignments_published", "Stored writes of learners' records published, each time they were."
)

# Validate
VALIDATED_BATCHES = Counter("midstream_validated_batches", "Batches split and judged.")
VALIDATED_EVENTS = Counter("midstream_validated_events", "Events judged, by verdict.", ["verdict"])
DEAD_LETTERS = Counter("midstream_dead_letters", "Dead letters written, by reason code.", ["reason"])
SEALED_BLOCKS = Counter("midstream_sealed_blocks", "Blocks sealed, by topic.", ["topic"])
SEALED_ROWS = Histogram(
    "midstream_sealed_block_rows",
    "Rows of a sealed block.",
    buckets=(1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 20000),
)
VALIDATE_BUFFER_BYTES = Gauge("midstream_validate_buffer_bytes", "Bytes of event text in blocks not sealed yet.")

# Validate and store
TAKEN_BYTES = Gauge("midstream_taken_bytes", "Bytes of Kafka records under work at once, by topic.", ["topic"])

# Store
STORED_EVENTS = Counter("midstream_stored_events", "Events stored, by table.", ["table"])
DUPLICATE_EVENTS = Counter("midstream_duplicate_events", "Arrivals of a mid that was stored before.")
REPLAYED_EVENTS = Counter("midstream_replayed_events", "Arrivals seen again inside the pipeline; counted nowhere else.")
REJECTED_EVENTS = Counter("midstream_rejected_events", "Dead letters stored in `rejects`.")
RECEIPTS_STORED = Counter("midstream_receipts_stored", "Batches written to `batches`.")
INSERT_SECONDS = Histogram("midstream_insert_seconds", "Time of one insert, by table.", ["table"], buckets=_SECONDS)
INSERT_RETRIES = Counter("midstream_insert_retries", "Inserts tried again, by table.", ["table"])
INSERTS_REPEATED = Counter(
    "midstream_inserts_repeated", "Inserts whose token was known and whose rows were not there, by table.", ["table"]
)
BLOCK_SECONDS = Histogram(
    "midstream_store_block_seconds", "Time of one block from read to acknowledged.", buckets=_SECONDS
)
VISIBLE_SECONDS = Histogram(
    "midstream_visible_seconds", "Age of a block's oldest event (by receipt) when it became visible.", buckets=_SECONDS
)
BLOCK_LOG_ROWS = Gauge("midstream_block_log_rows", "Rows of `block_rows` not written yet.")
DEDUPE_MIDS = Gauge("midstream_dedupe_mids", "Mids held by the dedupe cache, by layer.", ["layer"])
DEDUPE_BYTES = Gauge("midstream_dedupe_bytes", "Memory held by the dedupe cache.")
DEDUPE_LIMIT_BYTES = Gauge("midstream_dedupe_limit_bytes", "Bound of the memory of the dedupe cache.")
DEDUPE_LOOKUPS = Counter("midstream_dedupe_lookups", "Mids looked up in ClickHouse, by outcome.", ["outcome"])
CORRECTED_EVENTS = Counter(
    "midstream_corrected_events", "Stored events that got other copies of an object, by the object's type.", ["type"]
)
CORRECTIONS_LEFT_OUT = Counter(
    "midstream_corrections_left_out",
    "Stored events that kept their copy of an object, as it is too large for so many, by the object's type.",
    ["type"],
)
CORRECTION_SECONDS = Histogram(
    "midstream_correction_seconds",
    "Time to correct the stored events of some objects.",
    buckets=(1, 2.5, 5, 10, 30, 60, 300, 1200),
)
DIMENSION_CACHE_ENTRIES = Gauge("midstream_dimension_cache_entries", "Dimension rows held.")
DIMENSION_CACHE_BYTES = Gauge("midstream_dimension_cache_bytes", "Memory that these rows take, about.")
DIMENSION_VERSIONS_KNOWN = Gauge(
    "midstream_dimension_versions_known", "Dimension rows whose version in the topic is remembered."
)
DIMENSION_COPIES_LEFT_OUT = Counter(
    "midstream_dimension_copies_left_out",
    "Objects that a block's events do not carry because the copies of all would have been too large.",
)
DIMENSION_LOOKUPS = Counter(
    "midstream_dimension_lookups",
    "Objects looked up for a block, by type and outcome: `hit` in the cache; `found` or `missing` in ClickHouse.",
    ["type", "outcome"],
)
ERASED_IDS = Gauge("midstream_erased_ids", "Erased users that a worker knows, by a keyed hash of their id.")
ERASED_DIGESTS_HELD = Gauge("midstream_erased_digests_held", "Ids of users whose keyed hash is remembered.")
PSEUDONYMISED_EVENTS = Counter(
    "midstream_pseudonymised_events", "Events of erased users that came later, stored under a pseudonym."
)
UNACCOUNTED_EVENTS = Gauge(
    "midstream_unaccounted_events", "Events received, through the pipeline and nowhere, and rows too many: 0."
)
IN_FLIGHT_EVENTS = Gauge("midstream_in_flight_events", "Events received and not through the pipeline yet.")
COMPLETE_UNTIL_SECONDS = Gauge(
    "midstream_complete_until_seconds",
    "Every batch received before this time (epoch) has become stored, duplicate or rejected.",
)
OPEN_COLLECTORS = Gauge("midstream_open_collectors", "Collectors whose marks hold `complete_until`.")
LAG_RECORDS = Gauge("midstream_lag_records", "Records of a topic not yet acknowledged by a group.", ["group", "topic"])

# Devices
FLEET_EVENTS_WAITING = Gauge(
    "midstream_fleet_events_waiting",
    "Events of the fleet that wait for those who follow it.",
    multiprocess_mode="livesum",
)
STORED_REPORTS = Counter("midstream_stored_reports", "Devices' reports stored, each time they came.")
AHEAD_REPORTS = Counter("midstream_ahead_reports", "Those of them whose own time was five minutes ahead or more.")
REPORT_VISIBLE_SECONDS = Histogram(
    "midstream_report_visible_seconds",
    "Age of the oldest of some reports (by receipt) when they became visible.",
    buckets=_SECONDS,
)

# Exhaust
EXHAUST_DOWNLOADS = Counter("midstream_exhaust_downloads", "Downloads, by how they ended.", ["end"])
EXHAUST_SENT_BYTES = Counter("midstream_exhaust_sent_bytes", "Bytes of downloads that were sent.")
EXHAUST_FIRST_BYTE_SECONDS = Histogram(
    "midstream_exhaust_first_byte_seconds", "Time from a download's reply to its first byte taken.", buckets=_SECONDS
)
EXHAUST_LOG_DROPPED = Counter(
    "midstream_exhaust_log_dropped", "Rows of the log of downloads that were not written, as too many waited."
)
EXHAUST_KEPT_BYTES = Gauge(
    "midstream_exhaust_kept_bytes", "Bytes of built days that are kept.", multiprocess_mode="mostrecent"
)
EXHAUST_KEPT_DAYS = Gauge("midstream_exhaust_kept_days", "Built days that are kept.", multiprocess_mode="mostrecent")
EXHAUST_REQUESTS_OPEN = Gauge(
    "midstream_exhaust_requests_open",
    "Requests for downloads that wait or are being built.",
    multiprocess_mode="mostrecent",
)
EXHAUST_REQUEST_BYTES = Gauge(
    "midstream_exhaust_request_bytes",
    "Bytes of archives that were built at a request and have not expired.",
    multiprocess_mode="mostrecent",
)

# Dimension sources, in jobs
SOURCE_ROWS = Counter(
    "midstream_source_rows", "Rows read of dimension sources, by type and outcome.", ["type", "outcome"]
)
SOURCE_READ_SECONDS = Histogram(
    "midstream_source_read_seconds",
    "Time of one read of a dimension source, by type and outcome.",
    ["type", "outcome"],
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600),
)

SUSPECT_RECORDS = Gauge(
    "midstream_suspect_records", "Records at which this worker failed or died, and that have not gone through since."
)
POISON_RECORDS = Counter(
    "midstream_poison_records", "Records of which something was parked after the last try, by stage.", ["stage"]
)
WAITING_FOR_STORE_BLOCKS = Gauge(
    "midstream_waiting_for_store_blocks",
    "Blocks sealed under another number of partitions that `validate` waits for `store` to store; 0: it does not wait.",
)
LEARNED_SCHEMAS = Gauge(
    "midstream_learned_schemas",
    "Avro schemas of other versions of Midstream that this process has learned from the topic `schemas`.",
    multiprocess_mode="livemax",
)
FATAL_ERRORS = Counter("midstream_fatal_errors", "Errors that ended a worker, by stage.", ["stage"])

# Jobs
SYNC_JOBS = Counter(
    "midstream_sync_jobs",
    "Runs of jobs, by kind and how they ended: done, resweep, failed, cancelled, put_off (to be begun again later), "
    "released (this process was told to stop), lost (another process has it).",
    ["kind", "outcome"],
)
SYNC_SECONDS = Histogram(
    "midstream_sync_seconds",
    "Time of a run of a job, by kind.",
    ["kind"],
    buckets=(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600),
)
SYNC_ROWS_CHANGED = Counter("midstream_sync_rows_changed", "Rows that jobs have changed, by table.", ["table"])
SYNC_RUNNING = Gauge("midstream_sync_running", "Jobs that this process runs now: 0 or 1.")
SYNC_WAITING = Gauge("midstream_sync_waiting", "Jobs that wait to be run.")

# What everything stands on, measured by `jobs` at an interval
REACHABLE = Gauge(
    "midstream_reachable",
    "Whether a system (kafka, clickhouse, registry) answered `jobs` within two seconds: 1, or 0.",
    ["system"],
)
LAG_SECONDS = Gauge(
    "midstream_lag_seconds",
    "Age of the oldest record that a group has not acknowledged, to an eighth and by Kafka's time; 0: there is none.",
    ["group", "topic"],
)
PARTITION_PARTS = Gauge(
    "midstream_partition_parts", "Active parts of the partition of a table that has the most, by table.", ["table"]
)
PARTITION_PARTS_LIMIT = Gauge(
    "midstream_partition_parts_limit", "Active parts of a partition from which on ClickHouse delays inserts."
)
CLICKHOUSE_MEMORY_BYTES = Gauge("midstream_clickhouse_memory_bytes", "Memory that ClickHouse counts as its own.")
CLICKHOUSE_MEMORY_LIMIT_BYTES = Gauge(
    "midstream_clickhouse_memory_limit_bytes", "Memory that ClickHouse may take; beyond it queries fail."
)
CERTIFICATE_EXPIRES_SECONDS = Gauge(
    "midstream_certificate_expires_seconds",
    "When the certificate of an endpoint (`host:port`) that the settings name expires (epoch); or our own one, which "
    "`MIDSTREAM_KAFKA_CERTIFICATE` names.",
    ["endpoint"],
)
DEVICES_SEEN = Gauge(
    "midstream_devices_seen",
    "Devices that reported within the last day: `reporting`, or `silent` for longer than two of their intervals.",
    ["state"],
)


def _version() -> str:
    try:
        return version("midstream")
    except PackageNotFoundError:  # run from a source tree that nobody installed
        return "unknown"


BUILD_INFO.labels(_version()).set(1)
PROCESS_START_SECONDS.set(time.time())
