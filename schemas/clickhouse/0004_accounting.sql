-- How far each partition of telemetry.raw is through the whole pipeline: every batch below complete_offset has been split, its
-- events stored or refused in ClickHouse, and its own row written. `store` publishes it from Kafka's committed offsets.
CREATE TABLE IF NOT EXISTS @table(progress_rows)
(
    topic LowCardinality(String),
    partition UInt32,
    complete_offset UInt64,
    published_at DateTime64(3, 'UTC')
)
ENGINE = @engine(ReplacingMergeTree, published_at)
ORDER BY (topic, partition)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(progress_rows, xxh3(topic));

CREATE VIEW IF NOT EXISTS @view(progress) AS
SELECT * FROM progress_rows FINAL;

-- received = stored + duplicate + rejected + in_flight + unaccounted, by minute of receipt and the event's own channel. What has
-- not been seen of a batch has no channel yet and stands under ''. A batch that is through owes every one of its events: what is
-- missing of it is unaccounted. Arrivals of a batch whose own row is not written yet are counted as what they are, and owe nothing.
CREATE VIEW IF NOT EXISTS @view(accounting) AS
SELECT
    minute,
    channel,
    sum(stored_events) + sum(duplicate_events) + sum(rejected_events) + sum(waiting) + sum(missing) AS received,
    sum(stored_events) AS stored,
    sum(duplicate_events) AS duplicate,
    sum(rejected_events) AS rejected,
    sum(waiting) AS in_flight,
    sum(missing) AS unaccounted
FROM
(
    SELECT toStartOfMinute(received_at) AS minute, channel, toInt64(count()) AS stored_events, 0 AS duplicate_events,
        0 AS rejected_events, 0 AS waiting, 0 AS missing
    FROM events GROUP BY minute, channel
    UNION ALL
    SELECT toStartOfMinute(received_at) AS minute, channel, 0, toInt64(count()), 0, 0, 0
    FROM duplicates GROUP BY minute, channel
    UNION ALL
    SELECT toStartOfMinute(received_at) AS minute, channel, 0, 0, toInt64(count()), 0, 0
    FROM rejects WHERE NOT (scope = 'batch' AND code = 'POISON') GROUP BY minute, channel
    UNION ALL
    SELECT minute, '' AS channel, 0, 0, 0, sumIf(owed, NOT is_through) AS waiting, sumIf(owed, is_through) AS missing
    FROM
    (
        SELECT minute, batch_id, sum(events) AS owed, max(known) AS is_known, max(through) AS is_through
        FROM
        (
            SELECT toStartOfMinute(received_at) AS minute, batch_id, toInt64(events) AS events, 1 AS known,
                offset < complete_offset AS through
            FROM batches LEFT JOIN progress USING (topic, partition)
            UNION ALL
            SELECT toStartOfMinute(received_at) AS minute, batch_id, -toInt64(count()), 0, 0
            FROM events GROUP BY minute, batch_id
            UNION ALL
            SELECT toStartOfMinute(received_at) AS minute, batch_id, -toInt64(count()), 0, 0
            FROM duplicates GROUP BY minute, batch_id
            UNION ALL
            SELECT toStartOfMinute(received_at) AS minute, batch_id, -toInt64(count()), 0, 0
            FROM rejects WHERE NOT (scope = 'batch' AND code = 'POISON') GROUP BY minute, batch_id
        )
        GROUP BY minute, batch_id
    )
    WHERE is_known
    GROUP BY minute
)
GROUP BY minute, channel;
