"""Dimension sources: where an operator's users, content and other objects come from, by configuration. No Kafka, no
ClickHouse in here: what is read is staged on disk, whole, and the job that asked for it publishes it."""
