"""``midstream audit``: proves batch by batch that everything received became stored, duplicate or rejected, once.

It compares what collectors said of their batches (``batches``, written from ``telemetry.raw`` by a consumer of its own)
with the arrivals that are there, and asks Kafka about what is missing. It only reads.
"""
