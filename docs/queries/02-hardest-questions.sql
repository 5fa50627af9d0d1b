-- The questions that fewest answer right, of those answered at least ten times.
SELECT
    JSONExtractString(edata, 'item', 'title') AS question,
    JSONExtractString(content, 'name') AS practice,
    count() AS answers,
    round(100 * avg(JSONExtractFloat(edata, 'score'))) AS percent_right,
    round(median(edata_duration)) AS seconds
FROM events
WHERE eid = 'ASSESS' AND received_at >= now() - INTERVAL 30 DAY
GROUP BY question, practice
HAVING answers >= 10
ORDER BY percent_right, question
LIMIT 5
