"""Data sync: jobs that make ClickHouse agree with where dimensions come from, asked for, shown and cancelled."""
