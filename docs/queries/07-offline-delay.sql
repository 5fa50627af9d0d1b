-- How long events waited on their devices before they arrived. skew_ms takes the device's wrong clock out of it.
SELECT
    channel,
    multiIf(hours < 24, '1 under a day', hours < 72, '2 up to 3 days', hours < 168, '3 up to a week', '4 longer') AS waited,
    count() AS events,
    uniqExact(did) AS devices
FROM
(
    SELECT channel, did, date_diff('hour', ets + toIntervalMillisecond(ifNull(skew_ms, 0)), received_at) AS hours
    FROM events
    WHERE received_at >= now() - INTERVAL 30 DAY
)
GROUP BY channel, waited
ORDER BY channel, waited
