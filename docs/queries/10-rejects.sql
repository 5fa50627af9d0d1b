-- What clients have to mend: refused events by reason and place, with the app and one message.
SELECT
    code,
    eid,
    pointer,
    JSONExtractString(raw, 'context', 'pdata', 'id') AS app,
    count() AS events,
    min(substring(message, 1, 40)) AS message
FROM rejects
WHERE received_at >= now() - INTERVAL 30 DAY
GROUP BY code, eid, pointer, app
ORDER BY events DESC, code, eid, pointer, app
LIMIT 8
