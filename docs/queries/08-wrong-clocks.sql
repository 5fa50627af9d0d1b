-- Devices whose clock is off by more than five minutes, with one event's time as written and as corrected.
SELECT
    did,
    JSONExtractString(any(device), 'make') AS make,
    round(avg(skew_ms) / 3600000, 1) AS hours_behind,
    countIf(late) AS late_events,
    argMin(ets_original, mid) AS as_written,
    argMin(ets + toIntervalMillisecond(ifNull(skew_ms, 0)), mid) AS corrected
FROM events
WHERE received_at >= now() - INTERVAL 30 DAY AND abs(skew_ms) > 300000
GROUP BY did
ORDER BY abs(avg(skew_ms)) DESC, did
