"""Kafka: what the processes share of it."""
