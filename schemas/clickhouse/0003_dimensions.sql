-- Who, where and what: one row an object, the highest version. Deleted objects stay as rows marked so.
CREATE TABLE IF NOT EXISTS @table(dimension_rows)
(
    type LowCardinality(String),
    id String,
    attributes String,
    version Int64,
    deleted Bool,
    updated_at DateTime64(3, 'UTC') CODEC(Delta, LZ4)
)
ENGINE = @engine(ReplacingMergeTree, version)
ORDER BY (type, id)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(dimension_rows, xxh3(id));

CREATE VIEW IF NOT EXISTS @view(dimensions) AS
SELECT * FROM dimension_rows FINAL;
