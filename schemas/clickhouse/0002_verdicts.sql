-- Arrivals that were not stored as events, and the batches that brought them. Rows are written at least once; the
-- views show one row an arrival, or a batch, at any moment (FINAL within a partition: an arrival has one receipt).
CREATE TABLE IF NOT EXISTS @table(duplicate_rows)
(
    mid String,
    eid LowCardinality(String),
    did String,
    channel LowCardinality(String),
    batch_id String,
    event_index UInt32,
    received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    first_batch_id String,
    first_event_index UInt32,
    first_received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    differs Bool,
    stored_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    INDEX mid_bloom mid TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = @engine(ReplacingMergeTree)
PARTITION BY toYYYYMM(received_at)
ORDER BY (received_at, batch_id, event_index)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(duplicate_rows, xxh3(batch_id));

CREATE VIEW IF NOT EXISTS @view(duplicates) AS
SELECT * FROM duplicate_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE IF NOT EXISTS @table(reject_rows)
(
    mid String,
    eid LowCardinality(String),
    did String,
    channel LowCardinality(String),
    batch_id String,
    event_index Int32,
    received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    code LowCardinality(String),
    pointer String,
    message String,
    raw String,
    scope LowCardinality(String),
    stored_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    INDEX mid_bloom mid TYPE bloom_filter(0.001) GRANULARITY 1
)
ENGINE = @engine(ReplacingMergeTree)
PARTITION BY toYYYYMM(received_at)
ORDER BY (received_at, batch_id, event_index)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(reject_rows, xxh3(batch_id));

CREATE VIEW IF NOT EXISTS @view(rejects) AS
SELECT * FROM reject_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE TABLE IF NOT EXISTS @table(batch_rows)
(
    batch_id String,
    msgid String,
    received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    sent_at Nullable(DateTime64(3, 'UTC')),
    did String,
    channel LowCardinality(String),
    app LowCardinality(String),
    credential LowCardinality(String),
    user String,
    bytes UInt32,
    events UInt32,
    sequence UInt64 CODEC(Delta, LZ4),
    collector LowCardinality(String),
    topic LowCardinality(String),
    partition UInt32,
    offset UInt64 CODEC(Delta, LZ4),
    source LowCardinality(String),
    INDEX batch_bloom batch_id TYPE bloom_filter(0.001) GRANULARITY 1
)
-- A batch can lie in Kafka twice (its record was sent again after a lost answer): one row stays, at the place read last.
ENGINE = @engine(ReplacingMergeTree)
PARTITION BY toYYYYMM(received_at)
ORDER BY (received_at, batch_id)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(batch_rows, xxh3(batch_id));

CREATE VIEW IF NOT EXISTS @view(batches) AS
SELECT * FROM batch_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;
