"""The one adapter of ClickHouse: connections, inserts with deduplication tokens, migrations."""
