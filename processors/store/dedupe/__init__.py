"""Which rows of a block are new: a cache of what ClickHouse has stored, and the decision."""
