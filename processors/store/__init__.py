"""telemetry.valid, telemetry.dead -> ClickHouse: dedupe on mid, denormalise, route, insert.

Delivery: exactly once by effect. A record is the unit of insert: the same rows go to the same table under the same
deduplication token, whoever inserts them and however often. It is acknowledged, in order within its partition, after
all its inserts returned. What may be replayed: any record, any number of times. Dropped: nothing; an arrival of a mid
that is stored already becomes a row of ``duplicates``, the same arrival seen again is a replay and counted nowhere.
"""
