"""What every process of Midstream shares: settings, codes, metrics, records, clients of Kafka, ClickHouse and the
registry."""
