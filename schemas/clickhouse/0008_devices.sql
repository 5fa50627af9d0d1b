-- Devices' reports, in tables that any order and any number of deliveries leave with the same content: no deduplication tokens, no
-- cache. What 0005 declared for them was never written to; it has other names here, so that a migration that is still under way
-- drops nothing of ours.
--
-- The effective time of a report is its own, at most five minutes after its EARLIEST receipt, and copies of it may come in any order.
-- Here each copy has the time that it has by itself, `at` = least(own time, its receipt + 5 min), and a copy that was cut short so
-- is noted in device_ahead_rows besides. The earliest receipt gives the least `at`: so of a report in device_ahead_rows the copies with
-- the least `at` count, and later ones do not. Of any other report all copies have the same `at` and are one row.

-- One row is one thing that one copy of a report says: the value of a key (JSON text; 'null' removes the key), that it replaces the
-- whole state ('override', no key), or its message ('message', no key; the text itself); none is 'ahead'. Of two reports the later
-- (at, digest) counts. digest: SHA-256 of the report in canonical JSON; receipt_id: '' if the report has a time of its own, as otherwise
-- each receipt is another report. own_at_us: that time, microseconds since 1970, of any year that a device may name. stored_at: when
-- the row was written first; whoever follows the fleet asks for what was since he asked last.
CREATE TABLE IF NOT EXISTS @table(device_rows)
(
    device_id String,
    kind Enum8('value' = 0, 'override' = 1, 'message' = 2, 'ahead' = 3),
    key LowCardinality(String),
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    digest FixedString(32) CODEC(NONE),
    receipt_id String,
    value SimpleAggregateFunction(max, String),
    own_at_us SimpleAggregateFunction(max, Nullable(Int64)),
    received_at SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1)),
    stored_at SimpleAggregateFunction(min, DateTime64(3, 'UTC')) CODEC(Delta, LZ4),
    INDEX stored stored_at TYPE minmax
)
ENGINE = @engine(AggregatingMergeTree)
PARTITION BY toYYYYMM(received_at)
ORDER BY (device_id, kind, key, at, digest, receipt_id)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(device_rows, xxh3(device_id));

-- One row is a report whose time was cut short, with the least time of its copies.
CREATE TABLE IF NOT EXISTS @table(device_ahead_rows)
(
    device_id String,
    digest FixedString(32) CODEC(NONE),
    first_at SimpleAggregateFunction(min, DateTime64(6, 'UTC')) CODEC(Delta, ZSTD(1))
)
ENGINE = @engine(AggregatingMergeTree)
ORDER BY (device_id, digest)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(device_ahead_rows, xxh3(device_id));

-- The latest row of each key among all copies, and an 'ahead' row for each device that has reports in device_ahead_rows: only there may
-- the latest copy be one that does not count. At the same place the earliest receipt counts.
CREATE TABLE IF NOT EXISTS @table(device_latest_rows)
(
    device_id String,
    kind Enum8('value' = 0, 'override' = 1, 'message' = 2, 'ahead' = 3),
    key LowCardinality(String),
    latest SimpleAggregateFunction(max, Tuple(
        at DateTime64(6, 'UTC'), digest FixedString(32), receipt_id String, received_before Int64, value String))
)
ENGINE = @engine(AggregatingMergeTree)
ORDER BY (device_id, kind, key)
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(device_latest_rows, xxh3(device_id));

CREATE MATERIALIZED VIEW IF NOT EXISTS @view(device_latest_feed) TO @like(device_latest_rows) AS
SELECT
    device_id,
    kind,
    key,
    max((at, digest, receipt_id, -toUnixTimestamp64Micro(received_at), value)) AS latest
FROM @like(device_rows)
GROUP BY device_id, kind, key;

CREATE MATERIALIZED VIEW IF NOT EXISTS @view(device_ahead_feed) TO @like(device_latest_rows) AS
SELECT device_id, 'ahead' AS kind, '' AS key, max((first_at, digest, '', toInt64(0), '')) AS latest
FROM @like(device_ahead_rows)
GROUP BY device_id;

-- One row is one key of one report, once, by the copies that count. at_original is the device's own time as far as the type holds
-- it; null where the report has none.
CREATE OR REPLACE VIEW @view(device_history) AS
SELECT
    device_id,
    key,
    max(value) AS value,
    at,
    if(isNull(max(own_at_us) AS own), NULL,
        fromUnixTimestamp64Micro(least(greatest(assumeNotNull(own), -2208988800000000), 10413791999999999), 'UTC')) AS at_original,
    min(device_rows.received_at) AS received_at,
    concat(lower(hex(digest)), if(receipt_id = '', '', concat('-', receipt_id))) AS report_id
FROM device_rows
GLOBAL LEFT JOIN
(
    SELECT device_id, digest, toNullable(min(first_at)) AS counting_at FROM device_ahead_rows GROUP BY device_id, digest
) AS ahead USING (device_id, digest)
WHERE kind = 'value' AND at <= ifNull(counting_at, at)
GROUP BY device_id, key, at, digest, receipt_id;

-- One row is one key of one device, now: its latest value, unless a later report removed it or replaced the whole state.
CREATE OR REPLACE VIEW @view(device_state) AS
WITH
    ahead AS
    (
        SELECT device_id, digest, toNullable(min(first_at)) AS counting_at FROM device_ahead_rows GROUP BY device_id, digest
    ),
    latest_copies AS
    (
        SELECT device_id, kind, key, max(device_latest_rows.latest) AS latest, latest.2 AS digest
        FROM device_latest_rows
        WHERE kind IN ('value', 'override')
        GROUP BY device_id, kind, key
    ),
    latest_with_ahead AS
    (
        SELECT device_id, kind, key, latest, latest.1 <= ifNull(counting_at, latest.1) AS counts
        FROM latest_copies GLOBAL LEFT JOIN ahead USING (device_id, digest)
    ),
    latest_reports AS
    (
        SELECT device_id, kind, key, latest FROM latest_with_ahead WHERE counts
        UNION ALL
        SELECT device_id, kind, key,
            max((at, digest, receipt_id, -toUnixTimestamp64Micro(device_rows.received_at), device_rows.value)) AS latest
        FROM device_rows
        GLOBAL INNER JOIN (SELECT device_id, kind, key FROM latest_with_ahead WHERE NOT counts) AS sought USING (device_id, kind, key)
        GLOBAL LEFT JOIN ahead USING (device_id, digest)
        WHERE at <= ifNull(counting_at, at)
        GROUP BY device_id, kind, key
    )
SELECT
    device_id,
    key,
    latest.5 AS value,
    latest.1 AS at,
    fromUnixTimestamp64Micro(-latest.4, 'UTC') AS received_at,
    concat(lower(hex(latest.2)), if(latest.3 = '', '', concat('-', latest.3))) AS report_id
FROM
(
    SELECT device_id, kind, key, latest, maxIf(latest, kind = 'override') OVER (PARTITION BY device_id) AS replaced
    FROM latest_reports
)
WHERE kind = 'value' AND value != 'null' AND (latest.1, latest.2, latest.3) >= (replaced.1, replaced.2, replaced.3);

-- One row is the message that came with one report.
CREATE OR REPLACE VIEW @view(device_messages) AS
SELECT
    device_id,
    max(value) AS message,
    at,
    min(device_rows.received_at) AS received_at,
    concat(lower(hex(digest)), if(receipt_id = '', '', concat('-', receipt_id))) AS report_id
FROM device_rows
GLOBAL LEFT JOIN
(
    SELECT device_id, digest, toNullable(min(first_at)) AS counting_at FROM device_ahead_rows GROUP BY device_id, digest
) AS ahead USING (device_id, digest)
WHERE kind = 'message' AND at <= ifNull(counting_at, at)
GROUP BY device_id, at, digest, receipt_id;

-- Of 0005; above the table of a cluster first.
DROP TABLE IF EXISTS @view(device_history_rows);

DROP TABLE IF EXISTS @table(device_history_rows);
