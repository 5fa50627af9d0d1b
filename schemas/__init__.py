"""JSON Schemas of events, Avro schemas of records, ClickHouse migrations: all as files."""
