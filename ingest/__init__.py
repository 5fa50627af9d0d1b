"""The collector and all that a request meets before Kafka."""
