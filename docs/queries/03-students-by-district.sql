-- Students and what they did, by the district in their profile, as it was when the event was stored.
SELECT
    JSONExtractString(location, 'state') AS state,
    JSONExtractString(location, 'district') AS district,
    uniqExact(actor_id) AS students,
    uniqExact(sid) AS sessions,
    countIf(eid = 'ASSESS') AS answers
FROM events
WHERE received_at >= now() - INTERVAL 30 DAY AND JSONExtractString(user, 'type') = 'student'
GROUP BY state, district
ORDER BY state, district
