-- What became of one mid: each of its arrivals, in order of receipt.
SELECT a.received_at AS received_at, outcome, batch_id, event_index, source, partition, offset
FROM
(
    SELECT batch_id, received_at, event_index, 'stored' AS outcome FROM events WHERE mid = {mid:String}
    UNION ALL
    SELECT batch_id, received_at, event_index, 'duplicate' FROM duplicates WHERE mid = {mid:String}
    UNION ALL
    SELECT batch_id, received_at, toUInt32(event_index), 'rejected' FROM rejects WHERE mid = {mid:String} AND scope = 'event'
) AS a
LEFT JOIN batches AS b ON b.batch_id = a.batch_id
ORDER BY received_at, batch_id, event_index
