-- Stored events, one row a mid. Two tables by use and retention; `events` is the view of both.
--
-- PARTITION BY month of receipt: old events synced today make no thousand partitions, retention drops whole parts, and the
--   deduplication window (counted in blocks of a partition) is not used up by one insert over many partitions.
-- ORDER BY channel, day, eid, user: the analysts' first filter is a channel and a time range; a day's rows of one kind and one
--   user lie together, which also compresses best.
-- INDEX bloom filters: one user, one device, one content, one mid without a scan. minmax on received_at: parts arrive in its order.
-- PROJECTION by_mid: what dedupe and trace ask by hash of the mid; atomic with its part.
-- deduplication windows: 10,000 blocks a partition, for a plain and for a replicated table (there by time, too: 7 days as in Kafka).
-- CODEC: LZ4, which makes a small insert a third cheaper than ZSTD in every column; a day after receipt the TTL recompresses
--   with ZSTD(3) (see midstream/clickhouse/migrate.py, which sets it together with the retention). Hashes do not compress.
CREATE TABLE IF NOT EXISTS @table(learning_events)
(
    mid String,
    mid_hash UInt64 CODEC(NONE),
    eid LowCardinality(String),
    ver LowCardinality(String),
    ets DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    ets_original String,
    received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    sent_at Nullable(DateTime64(3, 'UTC')),
    skew_ms Nullable(Int64),
    stored_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    channel LowCardinality(String),
    env LowCardinality(String),
    did String,
    sid String,
    actor_id String,
    actor_type LowCardinality(String),
    pdata_id LowCardinality(String),
    pdata_pid LowCardinality(String),
    pdata_ver LowCardinality(String),
    object_id String,
    object_type LowCardinality(String),
    object_ver String,
    object_rollup String,
    context_rollup String,
    cdata String,
    tags Array(String),
    edata String,
    edata_type LowCardinality(String),
    edata_id String,
    edata_pageid String,
    edata_subtype LowCardinality(String),
    edata_duration Nullable(Float64),
    user String,
    device String,
    content String,
    location String,
    flags LowCardinality(String),
    late Bool,
    batch_id String,
    event_index UInt32,
    content_hash UInt64 CODEC(NONE),
    raw String,
    INDEX received_at_minmax received_at TYPE minmax GRANULARITY 1,
    INDEX mid_bloom mid TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX actor_bloom actor_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX did_bloom did TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX object_bloom object_id TYPE bloom_filter(0.01) GRANULARITY 4,
    PROJECTION by_mid (SELECT mid_hash, mid, batch_id, event_index, received_at, content_hash ORDER BY mid_hash)
)
ENGINE = @engine(MergeTree)
PARTITION BY toYYYYMM(received_at)
ORDER BY (channel, toDate(ets), eid, actor_id, ets)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(learning_events, mid_hash);

-- Logs, errors and metrics: the same columns, kept for a time.
CREATE TABLE IF NOT EXISTS @table(operational_events) AS @like(learning_events)
ENGINE = @engine(MergeTree)
PARTITION BY toYYYYMM(received_at)
ORDER BY (channel, toDate(ets), eid, actor_id, ets)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(operational_events, mid_hash);

-- No FINAL and no DISTINCT here: a mid enters one table once, by deduplication before the insert and the insert's token.
CREATE VIEW IF NOT EXISTS @view(events) AS
SELECT * FROM learning_events
UNION ALL
SELECT * FROM operational_events;
