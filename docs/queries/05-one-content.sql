-- How one content is used: who opens it, who stays to the end, for how long, and what they think of it.
SELECT
    any(JSONExtractString(content, 'name')) AS name,
    uniqExact(actor_id) AS users,
    countIf(eid = 'START' AND edata_type = 'player') AS opened,
    countIf(eid = 'END' AND edata_type = 'player') AS closed,
    round(avgIf(edata_duration, eid = 'END' AND edata_type = 'player') / 60, 1) AS minutes_each,
    round(avgIf(JSONExtractFloat(edata, 'rating'), eid = 'FEEDBACK'), 1) AS rating
FROM events
WHERE object_id = {content:String}
