-- What partners downloaded, or tried to: one row a request that was let in. For analysts; nothing that is counted depends on it.
CREATE TABLE IF NOT EXISTS @table(exhaust_downloads)
(
    at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    licence LowCardinality(String),
    dataset LowCardinality(String),
    resource String,
    first_day Date,
    last_day Date,
    format LowCardinality(String),
    eids Array(String),
    channels Array(String),
    what LowCardinality(String),
    method LowCardinality(String),
    status UInt16,
    first_byte UInt64,
    sent_bytes UInt64,
    complete Bool,
    seconds Float64,
    client String
)
ENGINE = @engine(MergeTree)
PARTITION BY toYYYYMM(at)
ORDER BY (dataset, resource, at)
TTL toDateTime(at) + toIntervalDay(730)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(exhaust_downloads, xxh3(licence));
