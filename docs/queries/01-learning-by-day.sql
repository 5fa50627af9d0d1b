-- Learning in one school, day by day: events, students, minutes in the player.
SELECT
    toDate(ets) AS day,
    count() AS events,
    uniqExactIf(actor_id, JSONExtractString(user, 'type') = 'student') AS students,
    round(sumIf(edata_duration, eid = 'END' AND edata_type = 'player') / 60) AS minutes
FROM events
WHERE channel = {channel:String} AND ets >= now() - INTERVAL 30 DAY AND NOT late
GROUP BY day
ORDER BY day
