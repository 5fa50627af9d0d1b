-- Corrections of stored events: see midstream/correct. Lightweight updates need to know a row's place in the block that brought it.
ALTER TABLE @table(learning_events) MODIFY SETTING enable_block_number_column = 1, enable_block_offset_column = 1;

ALTER TABLE @table(operational_events) MODIFY SETTING enable_block_number_column = 1, enable_block_offset_column = 1;

-- Which erasure wrote the row, as a copy under a pseudonym; 0: the row is as it was stored. `events` does not show the column.
ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS erasure UInt32;

@above(learning_events, ADD COLUMN IF NOT EXISTS erasure UInt32);

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS erasure UInt32;

@above(operational_events, ADD COLUMN IF NOT EXISTS erasure UInt32);

-- What the view `events` lays over the tables now: the row of slot 1 with the highest generation. (Slot 0 holds the ids that are looked at.)
-- type: of the objects ('': none);
-- fill: only events whose flag says that a copy is missing or stale; texts, locations, states ('found' or 'missing'): the new copies of
-- the objects in `ids`. erasing: rows that this erasure writes are not shown before `hidden` names mids; from then on they are, and the
-- rows of these mids from before are not.
CREATE TABLE IF NOT EXISTS @table(correction_rows)
(
    slot UInt8,
    generation UInt64,
    type LowCardinality(String),
    fill Bool,
    ids Array(String),
    texts Array(String),
    locations Array(String),
    states Array(String),
    erasing UInt32,
    hidden Array(String)
)
ENGINE = @engine(ReplacingMergeTree, generation)
ORDER BY slot
SETTINGS non_replicated_deduplication_window = 10000, replicated_deduplication_window = 10000,
    replicated_deduplication_window_seconds = 604800;

@distributed(correction_rows, slot);

-- As before, and under a correction. The overlay is a constant of the query: without one, nothing below costs anything by the row.
-- The expressions are those of midstream/correct/expressions.py, with the overlay's parts by their places.
CREATE OR REPLACE VIEW @view(events) AS
WITH (
    SELECT argMax((type, fill, ids, texts, locations, states, erasing, hidden), generation) FROM correction_rows WHERE slot = 1
) AS o
SELECT * EXCEPT (erasure) REPLACE (
        if(o.1 = 'user', if(actor_type = 'User' AND (NOT o.2 OR position(flags, '"user":"missing"') > 0 OR position(flags, '"user":"stale"') > 0) AND transform(actor_id, o.3, o.6, '') != '', transform(actor_id, o.3, o.4, ''), user), user) AS user,
        if(o.1 = 'device', if((NOT o.2 OR position(flags, '"device":"missing"') > 0 OR position(flags, '"device":"stale"') > 0) AND transform(did, o.3, o.6, '') != '', transform(did, o.3, o.4, ''), device), device) AS device,
        if(o.1 = 'content', if((NOT o.2 OR position(flags, '"content":"missing"') > 0 OR position(flags, '"content":"stale"') > 0) AND transform(object_id, o.3, o.6, '') != '', transform(object_id, o.3, o.4, ''), content), content) AS content,
        if(o.1 = 'content', if((NOT o.2 OR position(flags, '"collection":"missing"') > 0 OR position(flags, '"collection":"stale"') > 0) AND transform(collection_id, o.3, o.6, '') != '', transform(collection_id, o.3, o.4, ''), collection), collection) AS collection,
        if(o.1 = 'organisation', if((NOT o.2 OR position(flags, '"organisation":"missing"') > 0 OR position(flags, '"organisation":"stale"') > 0) AND transform(organisation_id, o.3, o.6, '') != '', transform(organisation_id, o.3, o.4, ''), organisation), organisation) AS organisation,
        if(o.1 = 'batch', if((NOT o.2 OR position(flags, '"batch":"missing"') > 0 OR position(flags, '"batch":"stale"') > 0) AND transform(course_batch_id, o.3, o.6, '') != '', transform(course_batch_id, o.3, o.4, ''), batch), batch) AS batch,
        multiIf(
            o.1 = 'user', multiIf(NOT (actor_type = 'User' AND (NOT o.2 OR position(flags, '"user":"missing"') > 0 OR position(flags, '"user":"stale"') > 0) AND transform(actor_id, o.3, o.6, '') != ''), location, transform(actor_id, o.3, o.5, '') != '', transform(actor_id, o.3, o.5, ''), multiIf(if(JSONType(device, 'userDeclaredLocation', 'state') = 'String', JSONExtractString(device, 'userDeclaredLocation', 'state'), '') != '' OR if(JSONType(device, 'userDeclaredLocation', 'district') = 'String', JSONExtractString(device, 'userDeclaredLocation', 'district'), '') != '', concat('{"state":', replaceAll(toJSONString(if(JSONType(device, 'userDeclaredLocation', 'state') = 'String', JSONExtractString(device, 'userDeclaredLocation', 'state'), '')), '\\/', '/'), ',"district":', replaceAll(toJSONString(if(JSONType(device, 'userDeclaredLocation', 'district') = 'String', JSONExtractString(device, 'userDeclaredLocation', 'district'), '')), '\\/', '/'), ',"from":"user-declared"}'), if(JSONType(device, 'ipLocation', 'state') = 'String', JSONExtractString(device, 'ipLocation', 'state'), '') != '' OR if(JSONType(device, 'ipLocation', 'district') = 'String', JSONExtractString(device, 'ipLocation', 'district'), '') != '', concat('{"state":', replaceAll(toJSONString(if(JSONType(device, 'ipLocation', 'state') = 'String', JSONExtractString(device, 'ipLocation', 'state'), '')), '\\/', '/'), ',"district":', replaceAll(toJSONString(if(JSONType(device, 'ipLocation', 'district') = 'String', JSONExtractString(device, 'ipLocation', 'district'), '')), '\\/', '/'), ',"from":"ip-resolved"}'), '')),
            o.1 = 'device', if((NOT o.2 OR position(flags, '"device":"missing"') > 0 OR position(flags, '"device":"stale"') > 0) AND transform(did, o.3, o.6, '') != '' AND NOT position(location, '"from":"user-profile"') > 0, transform(did, o.3, o.5, ''), location),
            location) AS location,
        multiIf(
            o.1 = 'user', multiIf(NOT (actor_type = 'User' AND (NOT o.2 OR position(flags, '"user":"missing"') > 0 OR position(flags, '"user":"stale"') > 0) AND transform(actor_id, o.3, o.6, '') != ''), flags, transform(actor_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"user":"missing"', '"user":"found"'), '"user":"stale"', '"user":"found"'), replaceOne(replaceOne(flags, '"user":"found"', '"user":"missing"'), '"user":"stale"', '"user":"missing"')),
            o.1 = 'device', multiIf(NOT ((NOT o.2 OR position(flags, '"device":"missing"') > 0 OR position(flags, '"device":"stale"') > 0) AND transform(did, o.3, o.6, '') != ''), flags, transform(did, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"device":"missing"', '"device":"found"'), '"device":"stale"', '"device":"found"'), replaceOne(replaceOne(flags, '"device":"found"', '"device":"missing"'), '"device":"stale"', '"device":"missing"')),
            o.1 = 'content', multiIf(NOT ((NOT o.2 OR position(flags, '"collection":"missing"') > 0 OR position(flags, '"collection":"stale"') > 0) AND transform(collection_id, o.3, o.6, '') != ''), multiIf(NOT ((NOT o.2 OR position(flags, '"content":"missing"') > 0 OR position(flags, '"content":"stale"') > 0) AND transform(object_id, o.3, o.6, '') != ''), flags, transform(object_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"content":"missing"', '"content":"found"'), '"content":"stale"', '"content":"found"'), replaceOne(replaceOne(flags, '"content":"found"', '"content":"missing"'), '"content":"stale"', '"content":"missing"')), transform(collection_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(multiIf(NOT ((NOT o.2 OR position(flags, '"content":"missing"') > 0 OR position(flags, '"content":"stale"') > 0) AND transform(object_id, o.3, o.6, '') != ''), flags, transform(object_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"content":"missing"', '"content":"found"'), '"content":"stale"', '"content":"found"'), replaceOne(replaceOne(flags, '"content":"found"', '"content":"missing"'), '"content":"stale"', '"content":"missing"')), '"collection":"missing"', '"collection":"found"'), '"collection":"stale"', '"collection":"found"'), replaceOne(replaceOne(multiIf(NOT ((NOT o.2 OR position(flags, '"content":"missing"') > 0 OR position(flags, '"content":"stale"') > 0) AND transform(object_id, o.3, o.6, '') != ''), flags, transform(object_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"content":"missing"', '"content":"found"'), '"content":"stale"', '"content":"found"'), replaceOne(replaceOne(flags, '"content":"found"', '"content":"missing"'), '"content":"stale"', '"content":"missing"')), '"collection":"found"', '"collection":"missing"'), '"collection":"stale"', '"collection":"missing"')),
            o.1 = 'organisation', multiIf(NOT ((NOT o.2 OR position(flags, '"organisation":"missing"') > 0 OR position(flags, '"organisation":"stale"') > 0) AND transform(organisation_id, o.3, o.6, '') != ''), flags, transform(organisation_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"organisation":"missing"', '"organisation":"found"'), '"organisation":"stale"', '"organisation":"found"'), replaceOne(replaceOne(flags, '"organisation":"found"', '"organisation":"missing"'), '"organisation":"stale"', '"organisation":"missing"')),
            o.1 = 'batch', multiIf(NOT ((NOT o.2 OR position(flags, '"batch":"missing"') > 0 OR position(flags, '"batch":"stale"') > 0) AND transform(course_batch_id, o.3, o.6, '') != ''), flags, transform(course_batch_id, o.3, o.6, '') = 'found', replaceOne(replaceOne(flags, '"batch":"missing"', '"batch":"found"'), '"batch":"stale"', '"batch":"found"'), replaceOne(replaceOne(flags, '"batch":"found"', '"batch":"missing"'), '"batch":"stale"', '"batch":"missing"')),
            flags) AS flags)
FROM
(
    SELECT * FROM learning_events
    UNION ALL
    SELECT * FROM operational_events
)
WHERE o.7 = 0 OR if(empty(o.8), erasure < o.7, erasure >= o.7 OR transform(mid, o.8, arrayMap(one -> 1, o.8), 0) = 0);
