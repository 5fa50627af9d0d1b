-- Whether everything that was received is somewhere, by channel.
SELECT
    channel,
    sum(received) AS received,
    sum(stored) AS stored,
    sum(duplicate) AS duplicate,
    sum(rejected) AS rejected,
    sum(in_flight) AS in_flight,
    sum(unaccounted) AS unaccounted
FROM accounting
WHERE minute >= now() - INTERVAL 1 DAY
GROUP BY channel
ORDER BY channel
