"""``devices``: records of ``device.telemetry`` into the tables that devices' states are read from.

Delivery: at least once into rows that are the same however often they are written (``schemas/clickhouse/0008``); an
offset is acknowledged after the inserts. Nothing is dropped: a record that cannot be stored is parked in ``rejects``.
"""
