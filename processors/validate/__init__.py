"""telemetry.raw -> telemetry.valid and telemetry.dead: split, judge, normalise, seal.

Delivery: at least once. A record of ``telemetry.raw`` is acknowledged, in order within its partition, only after every
event in it has been acknowledged by Kafka as valid or as a dead letter. What may be replayed: whole batches, into other
blocks; the arrival (batch_id, event_index) that every row carries lets ``store`` tell a replay from a duplicate.
Dropped: nothing.
"""
