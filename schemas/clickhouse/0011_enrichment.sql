-- Collection, organisation and batch beside each event: copies as JSON text, and the ids by which they were looked up (the event's
-- own columns hold these inside JSON). For older rows all of them are ''. Organisations are few, like channels; of the other ids
-- a deployment has thousands, and LowCardinality would make an insert dearer by some 3% for each (measured with blocks of 2,000).

-- While one of the tables has a column more than the other, `SELECT *` of both fails; so the view names its columns, as it is and
-- as it will be.
CREATE OR REPLACE VIEW @view(events) AS
SELECT
    mid, mid_hash, eid, ver, ets, ets_original, received_at, sent_at, skew_ms, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, pdata_pid, pdata_ver, object_id, object_type, object_ver, object_rollup,
    context_rollup, cdata, tags, edata, edata_type, edata_id, edata_pageid, edata_subtype, edata_duration, user, device,
    content, location, flags, late, batch_id, event_index, content_hash, raw
FROM learning_events
UNION ALL
SELECT
    mid, mid_hash, eid, ver, ets, ets_original, received_at, sent_at, skew_ms, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, pdata_pid, pdata_ver, object_id, object_type, object_ver, object_rollup,
    context_rollup, cdata, tags, edata, edata_type, edata_id, edata_pageid, edata_subtype, edata_duration, user, device,
    content, location, flags, late, batch_id, event_index, content_hash, raw
FROM operational_events;

ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS collection String;

@above(learning_events, ADD COLUMN IF NOT EXISTS collection String);

ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS organisation String;

@above(learning_events, ADD COLUMN IF NOT EXISTS organisation String);

ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS batch String;

@above(learning_events, ADD COLUMN IF NOT EXISTS batch String);

ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS collection_id String;

@above(learning_events, ADD COLUMN IF NOT EXISTS collection_id String);

ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS organisation_id LowCardinality(String);

@above(learning_events, ADD COLUMN IF NOT EXISTS organisation_id LowCardinality(String));

ALTER TABLE @table(learning_events) ADD COLUMN IF NOT EXISTS course_batch_id String;

@above(learning_events, ADD COLUMN IF NOT EXISTS course_batch_id String);

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS collection String;

@above(operational_events, ADD COLUMN IF NOT EXISTS collection String);

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS organisation String;

@above(operational_events, ADD COLUMN IF NOT EXISTS organisation String);

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS batch String;

@above(operational_events, ADD COLUMN IF NOT EXISTS batch String);

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS collection_id String;

@above(operational_events, ADD COLUMN IF NOT EXISTS collection_id String);

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS organisation_id LowCardinality(String);

@above(operational_events, ADD COLUMN IF NOT EXISTS organisation_id LowCardinality(String));

ALTER TABLE @table(operational_events) ADD COLUMN IF NOT EXISTS course_batch_id String;

@above(operational_events, ADD COLUMN IF NOT EXISTS course_batch_id String);

CREATE OR REPLACE VIEW @view(events) AS
SELECT
    mid, mid_hash, eid, ver, ets, ets_original, received_at, sent_at, skew_ms, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, pdata_pid, pdata_ver, object_id, object_type, object_ver, object_rollup,
    context_rollup, cdata, tags, edata, edata_type, edata_id, edata_pageid, edata_subtype, edata_duration, user, device,
    content, location, flags, late, batch_id, event_index, content_hash, raw, collection, organisation, batch,
    collection_id, organisation_id, course_batch_id
FROM learning_events
UNION ALL
SELECT
    mid, mid_hash, eid, ver, ets, ets_original, received_at, sent_at, skew_ms, stored_at, channel, env, did, sid,
    actor_id, actor_type, pdata_id, pdata_pid, pdata_ver, object_id, object_type, object_ver, object_rollup,
    context_rollup, cdata, tags, edata, edata_type, edata_id, edata_pageid, edata_subtype, edata_duration, user, device,
    content, location, flags, late, batch_id, event_index, content_hash, raw, collection, organisation, batch,
    collection_id, organisation_id, course_batch_id
FROM operational_events;

-- When the row was inserted, by the clock of who inserted it: what has changed since a moment is asked for by this, with some
-- seconds to spare (another host's clock, an insert under way). 0: before this column was there.
ALTER TABLE @table(dimension_rows) ADD COLUMN IF NOT EXISTS stored_at DateTime64(3, 'UTC') DEFAULT 0 CODEC(Delta, LZ4);

@above(dimension_rows, ADD COLUMN IF NOT EXISTS stored_at DateTime64(3, 'UTC') DEFAULT 0);

-- Rows of the type 'erased' are no objects: their ids are keyed hashes of the ids of those who were erased.
CREATE OR REPLACE VIEW @view(dimensions) AS
SELECT * FROM dimension_rows FINAL WHERE type != 'erased';
