"""How a builder ends: its exit codes."""

BUILT = 0
FAILED = 1
"""See the log."""
ABANDONED = 3
"""Nobody waited any more."""
CLICKHOUSE = 4
"""ClickHouse did not answer, or broke off: it may be tried again."""
ANOTHERS = 5
"""Another process builds it."""
CHANGED = 6
"""Its bytes are not those that it had before: other versions of the libraries make them."""
