-- What exact accounting needs beyond 0004: an arrival counted once whatever was written of it, topics made anew, a moment up to
-- which everything is complete, and data that retention has deleted.

-- When Kafka appended the batch's record (LogAppendTime): tells the generations of a topic that was deleted and made anew apart.
ALTER TABLE @table(batch_rows) ADD COLUMN IF NOT EXISTS appended_at DateTime64(3, 'UTC') DEFAULT received_at CODEC(Delta, LZ4);

@above(batch_rows, ADD COLUMN IF NOT EXISTS appended_at DateTime64(3, 'UTC') DEFAULT received_at);

CREATE OR REPLACE VIEW @view(batches) AS
SELECT * FROM batch_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- How many arrivals a row stands for: 1 for an event, the batch's number for a body that could not be split, 0 for a record inside
-- the pipeline that could not be read, as nobody knows which arrivals were in it.
ALTER TABLE @table(reject_rows) ADD COLUMN IF NOT EXISTS events UInt32 DEFAULT if(scope = 'batch' AND code = 'POISON', 0, 1);

@above(reject_rows, ADD COLUMN IF NOT EXISTS events UInt32 DEFAULT if(scope = 'batch' AND code = 'POISON', 0, 1));

CREATE OR REPLACE VIEW @view(rejects) AS
SELECT * FROM reject_rows FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- When the first record of the topic's present generation was appended. What was appended before it is of an older generation
-- and can become nothing more: it is through.
ALTER TABLE @table(progress_rows) ADD COLUMN IF NOT EXISTS since DateTime64(3, 'UTC') DEFAULT 0;

@above(progress_rows, ADD COLUMN IF NOT EXISTS since DateTime64(3, 'UTC') DEFAULT 0);

CREATE OR REPLACE VIEW @view(progress) AS
SELECT * FROM progress_rows FINAL;

-- The newest mark of each collector: every batch that it received before `low` and answered with 200 is in telemetry.raw.
CREATE TABLE IF NOT EXISTS @table(collector_rows)
(
    id String,
    low DateTime64(3, 'UTC'),
    at DateTime64(3, 'UTC'),
    open Bool,
    spooled_batches UInt64,
    spooled_bytes UInt64,
    oldest DateTime64(3, 'UTC')
)
ENGINE = @engine(ReplacingMergeTree, at)
ORDER BY id
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(collector_rows, xxh3(id));

CREATE OR REPLACE VIEW @view(collectors) AS
SELECT * FROM collector_rows FINAL;

-- Moments that only ever move forward, whoever writes them: `complete` (every batch received before it has become stored, duplicate
-- or rejected) and `settled` (minutes before it have been checked for losses for good).
CREATE TABLE IF NOT EXISTS @table(watermark_rows)
(
    watermark LowCardinality(String),
    reached DateTime64(3, 'UTC')
)
ENGINE = @engine(ReplacingMergeTree, reached)
ORDER BY watermark
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(watermark_rows, xxh3(watermark));

CREATE OR REPLACE VIEW @view(complete_until) AS
SELECT max(reached) AS complete_until FROM watermark_rows WHERE watermark = 'complete';

-- Settled minutes in which something was missing or too many, so that no restart forgets them; one that was mended has 0.
CREATE TABLE IF NOT EXISTS @table(loss_rows)
(
    minute DateTime('UTC'),
    events UInt64,
    checked_at DateTime64(3, 'UTC')
)
ENGINE = @engine(ReplacingMergeTree, checked_at)
ORDER BY minute
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(loss_rows, xxh3(minute));

CREATE OR REPLACE VIEW @view(losses) AS
SELECT * FROM loss_rows FINAL WHERE events > 0;

-- The retention of each event table, as `midstream migrate` has set it: days (0: for ever), and what was deleted under
-- a shorter one before.
CREATE TABLE IF NOT EXISTS @table(retention_rows)
(
    table LowCardinality(String),
    days UInt32,
    deleted_before DateTime64(3, 'UTC'),
    set_at DateTime64(3, 'UTC')
)
ENGINE = @engine(ReplacingMergeTree, set_at)
ORDER BY table
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(retention_rows, xxh3(table));

-- Batches received before this moment owe nothing: retention may have deleted some of their events. Measured from the newest progress,
-- never from the engine's clock; an hour more, for two hosts' clocks.
CREATE OR REPLACE VIEW @view(retention) AS
SELECT max(greatest(deleted_before, if(days = 0, toDateTime64(0, 3, 'UTC'), newest - toIntervalDay(days)))) + toIntervalHour(1) AS owed_from
FROM (SELECT days, deleted_before FROM retention_rows FINAL) AS set
CROSS JOIN (SELECT max(published_at) AS newest FROM progress_rows) AS published;

-- received = stored + duplicate + rejected + in_flight + unaccounted, by minute of receipt and the event's own channel.
--
-- Batch by batch, with bitmaps of the arrivals' places, so that an arrival is counted once: stored before duplicate before rejected,
-- however often and in whatever order these were written. A body that could not be split stands for those of its
-- events that are nowhere else. What has not been seen of a batch has no channel yet and stands under ''. A batch that is through
-- owes every one of its events, and no other batch's surplus pays for it. `surplus` counts rows too many: an arrival stored twice, or
-- one that its batch does not have. Arrivals of a batch whose own row is not written yet are counted as what they are.
--
-- The first branch reads how far the pipeline is before the others read what became of it: what was through then is there now.
CREATE OR REPLACE VIEW @view(accounting) AS
SELECT
    minute,
    part.1 AS channel,
    sum(part.2 + part.3 + part.4 + part.5 + part.6) AS received,
    sum(part.2) AS stored,
    sum(part.3) AS duplicate,
    sum(part.4) AS rejected,
    sum(part.5) AS in_flight,
    sum(part.6) AS unaccounted,
    sum(part.7) AS surplus,
    ifNull((SELECT complete_until FROM complete_until), toDateTime64(0, 3, 'UTC')) AS complete_until
FROM
(
    SELECT
        minute,
        batch_id,
        max(events) AS batch_events,
        max(known) AS is_known,
        max(through) AS is_through,
        max(whole) AS whole_events,
        groupBitmapMergeState(stored_places) AS all_stored,
        bitmapOr(all_stored, groupBitmapMergeState(duplicate_places)) AS all_kept,
        bitmapOr(all_kept, groupBitmapMergeState(rejected_places)) AS all_places,
        bitmapCardinality(all_places) AS places,
        if(is_known, bitmapCardinality(bitmapSubsetInRange(all_places, toUInt32(0), batch_events)), places) AS places_within,
        if(is_known, batch_events, greatest(whole_events, places)) - places_within AS owed,
        least(owed, whole_events) AS rejected_whole,
        arrayConcat(
            arrayMap(
                part -> (
                    part.1,
                    toInt64(bitmapCardinality(part.2)),
                    toInt64(bitmapAndnotCardinality(part.3, all_stored)),
                    toInt64(bitmapAndnotCardinality(part.4, all_kept)),
                    toInt64(0),
                    toInt64(0),
                    toInt64(part.5 - bitmapCardinality(part.2))),
                groupArray((channel, stored_places, duplicate_places, rejected_places, stored_rows))),
            [(
                toLowCardinality(''),
                toInt64(0),
                toInt64(0),
                toInt64(rejected_whole),
                if(is_known AND NOT is_through, toInt64(owed - rejected_whole), toInt64(0)),
                if(is_known AND is_through, toInt64(owed - rejected_whole), toInt64(0)),
                toInt64(places - places_within))]) AS parts
    FROM
    (
        SELECT
            minute,
            batch_id,
            channel,
            max(batch_events) AS events,
            max(is_batch) AS known,
            max(is_through) AS through,
            max(body_events) AS whole,
            groupBitmapStateIf(place, outcome = 1) AS stored_places,
            groupBitmapStateIf(place, outcome = 2) AS duplicate_places,
            groupBitmapStateIf(place, outcome = 3) AS rejected_places,
            countIf(outcome = 1) AS stored_rows
        FROM
        (
            SELECT toStartOfMinute(received_at) AS minute, batch_id, toLowCardinality('') AS channel, toUInt32(0) AS place, 0 AS outcome,
                events AS batch_events, received_at >= (SELECT owed_from FROM retention) AS is_batch,
                offset < complete_offset OR appended_at < since AS is_through, toUInt32(0) AS body_events
            FROM batch_rows
            LEFT JOIN (SELECT topic, partition, complete_offset, since FROM progress_rows FINAL) AS reached USING (topic, partition)
            UNION ALL
            SELECT toStartOfMinute(received_at), batch_id, channel, event_index, 1, 0, 0, 0, 0 FROM events
            UNION ALL
            SELECT toStartOfMinute(received_at), batch_id, channel, event_index, 2, 0, 0, 0, 0 FROM duplicate_rows
            UNION ALL
            SELECT toStartOfMinute(received_at), batch_id, if(event_index < 0, toLowCardinality(''), channel),
                toUInt32(greatest(event_index, 0)), if(event_index < 0, 4, 3), 0, 0, 0, if(event_index < 0, events, 0)
            FROM rejects
        )
        GROUP BY minute, batch_id, channel
    )
    GROUP BY minute, batch_id
)
ARRAY JOIN parts AS part
GROUP BY minute, channel
HAVING received != 0 OR surplus != 0;

-- What trace asks: the arrivals of one mid among millions that were not stored as events. A projection by hash of the mid, as the
-- event tables have one, rebuilt when a merge drops repeated rows.
ALTER TABLE @table(duplicate_rows) MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE @table(duplicate_rows) ADD COLUMN IF NOT EXISTS mid_hash UInt64 MATERIALIZED xxh3(mid) CODEC(NONE);

@above(duplicate_rows, ADD COLUMN IF NOT EXISTS mid_hash UInt64 MATERIALIZED xxh3(mid));

ALTER TABLE @table(duplicate_rows) ADD PROJECTION IF NOT EXISTS by_mid
(
    SELECT mid_hash, mid, batch_id, event_index, received_at, first_batch_id, first_event_index, first_received_at, differs
    ORDER BY mid_hash
);

ALTER TABLE @table(duplicate_rows) MATERIALIZE PROJECTION by_mid;

ALTER TABLE @table(reject_rows) MODIFY SETTING deduplicate_merge_projection_mode = 'rebuild';

ALTER TABLE @table(reject_rows) ADD COLUMN IF NOT EXISTS mid_hash UInt64 MATERIALIZED xxh3(mid) CODEC(NONE);

@above(reject_rows, ADD COLUMN IF NOT EXISTS mid_hash UInt64 MATERIALIZED xxh3(mid));

ALTER TABLE @table(reject_rows) ADD PROJECTION IF NOT EXISTS by_mid
(
    SELECT mid_hash, mid, batch_id, event_index, received_at, code, pointer, message, stored_at
    ORDER BY mid_hash
);

ALTER TABLE @table(reject_rows) MATERIALIZE PROJECTION by_mid;

-- What became of each block of telemetry.valid, and when its events became visible: `stored_at` is what they carry, `visible_at` the moment
-- after their inserts returned. For trace and for latency; nothing that is counted depends on it. A block read again has a row more.
CREATE TABLE IF NOT EXISTS @table(block_rows)
(
    partition UInt32,
    offset UInt64 CODEC(Delta, LZ4),
    partitions UInt32,
    stored_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    visible_at DateTime64(3, 'UTC') CODEC(Delta, LZ4),
    rows UInt32,
    new_rows UInt32,
    duplicate_rows UInt32,
    replayed_rows UInt32
)
ENGINE = @engine(MergeTree)
PARTITION BY toYYYYMM(stored_at)
ORDER BY (stored_at, partition)
TTL toDateTime(stored_at) + toIntervalDay(90)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(block_rows, partition);
