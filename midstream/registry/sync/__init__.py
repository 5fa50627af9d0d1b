"""Jobs that make ClickHouse agree with where dimensions come from, and the ids that were erased."""
