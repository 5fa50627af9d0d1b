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
-- not been seen of a batch has no channel yet and stands under ''. A batch that is through owes every one of its events:
-- what is missing of it is unaccounted.
CREATE VIEW IF NOT EXISTS @view(accounting) AS
WITH waiting AS
(
    SELECT batch_id FROM batches LEFT JOIN progress USING (topic, partition) WHERE offset >= complete_offset
)
SELECT
    minute,
    channel,
    sum(parts.stored) + sum(parts.duplicate) + sum(parts.rejected) + sum(parts.in_flight) + sum(parts.unaccounted) AS received,
    sum(parts.stored) AS stored,
    sum(parts.duplicate) AS duplicate,
    sum(parts.rejected) AS rejected,
    sum(parts.in_flight) AS in_flight,
    sum(parts.unaccounted) AS unaccounted
FROM
(
    SELECT toStartOfMinute(received_at) AS minute, channel, toInt64(count()) AS stored, 0 AS duplicate, 0 AS rejected,
        0 AS in_flight, 0 AS unaccounted
    FROM events GROUP BY minute, channel
    UNION ALL
    SELECT toStartOfMinute(received_at) AS minute, channel, 0, toInt64(count()), 0, 0, 0
    FROM duplicates GROUP BY minute, channel
    UNION ALL
    SELECT toStartOfMinute(received_at) AS minute, channel, 0, 0, toInt64(count()), 0, 0
    FROM rejects WHERE NOT (scope = 'batch' AND code = 'POISON') GROUP BY minute, channel
    UNION ALL
    SELECT minute, '' AS channel, 0, 0, 0, sum(waiting_events) AS in_flight, sum(missing_events) - sum(waiting_events) AS unaccounted
    FROM
    (
        SELECT toStartOfMinute(received_at) AS minute, toInt64(sum(events)) AS missing_events,
            toInt64(sumIf(events, batch_id IN (SELECT batch_id FROM waiting))) AS waiting_events
        FROM batches GROUP BY minute
        UNION ALL
        SELECT toStartOfMinute(received_at) AS minute, -toInt64(count()),
            -toInt64(countIf(batch_id IN (SELECT batch_id FROM waiting)))
        FROM events GROUP BY minute
        UNION ALL
        SELECT toStartOfMinute(received_at) AS minute, -toInt64(count()),
            -toInt64(countIf(batch_id IN (SELECT batch_id FROM waiting)))
        FROM duplicates GROUP BY minute
        UNION ALL
        SELECT toStartOfMinute(received_at) AS minute, -toInt64(count()),
            -toInt64(countIf(batch_id IN (SELECT batch_id FROM waiting)))
        FROM rejects WHERE NOT (scope = 'batch' AND code = 'POISON') GROUP BY minute
    )
    GROUP BY minute
) AS parts
GROUP BY minute, channel;
