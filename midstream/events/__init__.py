"""Reading and judging one event. Pure: no Kafka, no clock."""
