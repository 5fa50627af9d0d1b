-- Why events come twice: each second arrival beside the batch that brought the stored one.
SELECT
    multiIf(
        differs, 'sent again with other contents',
        again.msgid = before.msgid, 'the same batch again: its reply got lost',
        'in another batch: a shared file, for one') AS why,
    count() AS duplicates,
    uniqExact(d.batch_id) AS batches,
    uniqExact(d.did) AS devices
FROM duplicates AS d
INNER JOIN batches AS again ON again.batch_id = d.batch_id
INNER JOIN batches AS before ON before.batch_id = d.first_batch_id
WHERE d.received_at >= now() - INTERVAL 30 DAY
GROUP BY why
ORDER BY duplicates DESC, why
