-- Learners' records, as what was written: one row is one write, and any number of deliveries of it leaves the same content. What 0005
-- declared for them was never written to; it has other names here, so that a migration that is still under way drops nothing of ours.
--
-- A record is (academy_id, asset_slug, user_id). version is given out by its row in the registry and rises with every write. A bit of
-- `given` says that the writer gave the field (bit 0: telemetry, 1: metrics, 2: engagement_score, 3: frustration_score,
-- 4: completion_rate, 5: metrics_algo_version, 6: total_time; NULL clears), a bit of `computed` that it was derived from the telemetry.
-- A field is the latest value given; where that is NULL or was never given, the latest that was computed after it.
-- steps: what the learner did in each step, derived from the telemetry of this write (JSON, read by assignment_steps: one column, as each
-- makes an insert dearer). author: the user whose token wrote. (writer,
-- batch): the life of the process that wrote, and which of its inserts this was, for who publishes writes to Kafka.
CREATE TABLE IF NOT EXISTS @table(assignment_rows)
(
    academy_id Int64,
    asset_slug String,
    user_id Int64,
    version Int64,
    id Int64,
    author Int64,
    written_at DateTime64(6, 'UTC'),
    created_at DateTime64(6, 'UTC'),
    given UInt8,
    computed UInt8,
    telemetry Nullable(String),
    metrics Nullable(String),
    engagement_score Nullable(Float64),
    frustration_score Nullable(Float64),
    completion_rate Nullable(Float64),
    metrics_algo_version Nullable(Float64),
    total_time_us Nullable(Int64),
    steps String,
    writer LowCardinality(String),
    batch UInt64
)
ENGINE = @engine(ReplacingMergeTree)
ORDER BY (academy_id, asset_slug, user_id, version)
SETTINGS index_granularity_bytes = 262144, max_compress_block_size = 131072, non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(assignment_rows, xxh3(asset_slug));

-- One row is one write. `fields` are those that the writer gave, `computed_fields` those derived from the telemetry.
CREATE OR REPLACE VIEW @view(assignment_telemetry_history) AS
WITH ['telemetry', 'metrics', 'engagement_score', 'frustration_score', 'completion_rate', 'metrics_algo_version', 'total_time'] AS names
SELECT
    academy_id, user_id, asset_slug, id, version, written_at, author,
    arrayFilter((name, number) -> bitTest(given, number - 1), names, arrayEnumerate(names)) AS fields,
    arrayFilter((name, number) -> bitTest(computed, number - 1), names, arrayEnumerate(names)) AS computed_fields,
    telemetry, metrics, engagement_score, frustration_score, completion_rate, metrics_algo_version,
    total_time_us / 1000000 AS total_time_s
FROM assignment_rows FINAL;

-- One row is one record, now. total_time is text as the API writes it, total_time_s the same in seconds.
CREATE OR REPLACE VIEW @view(assignment_telemetry) AS
SELECT
    academy_id, user_id, asset_slug, id, telemetry, metrics, engagement_score, frustration_score, completion_rate, metrics_algo_version,
    if(isNull(time_us), NULL, concat(
        if(assumeNotNull(time_us) < 86400000000, '', concat(toString(intDiv(assumeNotNull(time_us), 86400000000)), ' ')),
        leftPad(toString(intDiv(assumeNotNull(time_us) % 86400000000, 3600000000)), 2, '0'), ':',
        leftPad(toString(intDiv(assumeNotNull(time_us) % 3600000000, 60000000)), 2, '0'), ':',
        leftPad(toString(intDiv(assumeNotNull(time_us) % 60000000, 1000000)), 2, '0'),
        if(assumeNotNull(time_us) % 1000000 = 0, '', concat('.', leftPad(toString(assumeNotNull(time_us) % 1000000), 6, '0'))))) AS total_time,
    time_us / 1000000 AS total_time_s,
    created_at, updated_at
FROM
(
    SELECT
        academy_id, user_id, asset_slug,
        max(assignment_rows.id) AS id,
        argMaxIf(tuple(assignment_rows.telemetry), version, bitTest(given, 0)).1 AS telemetry,
        argMaxIf(tuple(assignment_rows.metrics), version, bitTest(given, 1)).1 AS given_1,
        argMaxIf(tuple(assignment_rows.metrics), version, bitTest(computed, 1)).1 AS computed_1,
        argMaxIf(tuple(assignment_rows.engagement_score), version, bitTest(given, 2)).1 AS given_2,
        argMaxIf(tuple(assignment_rows.engagement_score), version, bitTest(computed, 2)).1 AS computed_2,
        argMaxIf(tuple(assignment_rows.frustration_score), version, bitTest(given, 3)).1 AS given_3,
        argMaxIf(tuple(assignment_rows.frustration_score), version, bitTest(computed, 3)).1 AS computed_3,
        argMaxIf(tuple(assignment_rows.completion_rate), version, bitTest(given, 4)).1 AS given_4,
        argMaxIf(tuple(assignment_rows.completion_rate), version, bitTest(computed, 4)).1 AS computed_4,
        argMaxIf(tuple(assignment_rows.metrics_algo_version), version, bitTest(given, 5)).1 AS given_5,
        argMaxIf(tuple(assignment_rows.metrics_algo_version), version, bitTest(computed, 5)).1 AS computed_5,
        coalesce(given_1, if(maxIf(version, bitTest(computed, 1)) > maxIf(version, bitTest(given, 1)), computed_1, NULL)) AS metrics,
        coalesce(given_2, if(maxIf(version, bitTest(computed, 2)) > maxIf(version, bitTest(given, 2)), computed_2, NULL)) AS engagement_score,
        coalesce(given_3, if(maxIf(version, bitTest(computed, 3)) > maxIf(version, bitTest(given, 3)), computed_3, NULL)) AS frustration_score,
        coalesce(given_4, if(maxIf(version, bitTest(computed, 4)) > maxIf(version, bitTest(given, 4)), computed_4, NULL)) AS completion_rate,
        coalesce(given_5, if(maxIf(version, bitTest(computed, 5)) > maxIf(version, bitTest(given, 5)), computed_5, NULL)) AS metrics_algo_version,
        argMaxIf(tuple(assignment_rows.total_time_us), version, bitTest(given, 6)).1 AS time_us,
        argMax(assignment_rows.created_at, version) AS created_at,
        argMax(written_at, version) AS updated_at
    FROM assignment_rows
    GROUP BY academy_id, asset_slug, user_id
);

-- One row is one step of one record, as the latest telemetry of the record tells it.
CREATE OR REPLACE VIEW @view(assignment_steps) AS
SELECT
    academy_id, user_id, asset_slug, step.slug AS step_slug, step.position AS position, step.opened AS opened, step.completed AS completed,
    step.skipped AS skipped, step.compilation_struggles AS compilation_struggles, step.test_struggles AS test_struggles,
    step.seconds AS seconds
FROM
(
    SELECT academy_id, user_id, asset_slug, argMaxIf(assignment_rows.steps, version, bitTest(given, 0)) AS steps
    FROM assignment_rows
    GROUP BY academy_id, asset_slug, user_id
)
ARRAY JOIN JSONExtract(steps, 'Array(Tuple(slug String, position Int64, opened Bool, completed Bool, skipped Bool,
    compilation_struggles UInt32, test_struggles UInt32, seconds Float64))') AS step;

-- Of 0005; above the table of a cluster first.
DROP TABLE IF EXISTS @view(assignment_history);

DROP TABLE IF EXISTS @table(assignment_history);
