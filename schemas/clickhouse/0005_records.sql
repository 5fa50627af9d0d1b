-- Records that many writes make together, kept as what was written (append-only) with a view of how things stand now. A view is
-- a last-writer-wins map: any order and any number of deliveries give the same rows.

-- One row is one key of one device's report. A report that replaces the whole state has a row with the empty key and override.
-- value is JSON text; 'null' removes the key. Of two reports the later (at, report_id) wins; report_id is the SHA-256 of the report.
CREATE TABLE IF NOT EXISTS @table(device_history_rows)
(
    device_id String,
    key LowCardinality(String),
    value String,
    at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    at_original DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    received_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    report_id String,
    override Bool
)
ENGINE = @engine(ReplacingMergeTree)
PARTITION BY toYYYYMM(at)
ORDER BY (device_id, key, at, report_id)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(device_history_rows, xxh3(device_id));

CREATE VIEW IF NOT EXISTS @view(device_history) AS
SELECT device_id, key, value, at, at_original, received_at, report_id FROM device_history_rows FINAL WHERE key != ''
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS @view(device_state) AS
SELECT device_id, key, latest.1 AS value, latest.2 AS at, latest.3 AS received_at
FROM
(
    SELECT device_id, key, argMax((value, at, received_at), (at, report_id)) AS latest, max((at, report_id)) AS written
    FROM device_history_rows WHERE key != '' GROUP BY device_id, key
) AS keys
LEFT JOIN
(
    SELECT device_id, max((at, report_id)) AS replaced FROM device_history_rows WHERE override GROUP BY device_id
) AS overrides USING (device_id)
WHERE written >= replaced AND value != 'null';

-- One row is one field of one write of a learner's record of an asset. value is JSON text; 'null' clears the field. Of two writes
-- of a field the later (written_at, write_id) wins.
CREATE TABLE IF NOT EXISTS @table(assignment_history)
(
    academy_id Int64,
    user_id Int64,
    asset_slug String,
    id Int64,
    field LowCardinality(String),
    value String,
    written_at DateTime64(6, 'UTC') CODEC(Delta, LZ4),
    write_id String
)
ENGINE = @engine(ReplacingMergeTree)
ORDER BY (academy_id, asset_slug, user_id, field, written_at, write_id)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(assignment_history, xxh3(asset_slug));

CREATE VIEW IF NOT EXISTS @view(assignment_telemetry) AS
SELECT
    academy_id,
    user_id,
    asset_slug,
    any(id) AS id,
    argMaxIf(value, (written_at, write_id), field = 'telemetry') AS telemetry,
    argMaxIf(value, (written_at, write_id), field = 'metrics') AS metrics,
    toFloat64OrNull(argMaxIf(value, (written_at, write_id), field = 'engagement_score')) AS engagement_score,
    toFloat64OrNull(argMaxIf(value, (written_at, write_id), field = 'frustration_score')) AS frustration_score,
    toFloat64OrNull(argMaxIf(value, (written_at, write_id), field = 'completion_rate')) AS completion_rate,
    toFloat64OrNull(argMaxIf(value, (written_at, write_id), field = 'metrics_algo_version')) AS metrics_algo_version,
    argMaxIf(value, (written_at, write_id), field = 'total_time') AS total_time,
    min(written_at) AS created_at,
    max(written_at) AS updated_at
FROM assignment_history
GROUP BY academy_id, asset_slug, user_id;
