"""What the workers remember: mids that are stored, dimensions, erased users."""

from __future__ import annotations

from deploy.grafana.board import Line, Row
from deploy.grafana.panels import Words, lines
from deploy.grafana.queries import STORE, gauge, or_zero, rate, rate_or_zero
from midstream import metrics


def remembered() -> list[Row]:
    """Return the rows of the workers' dashboard about it."""
    return [_dedupe(), _dimensions()]


def _dedupe() -> Row:
    mids = Words(
        "Mids that the dedupe cache holds, by layer: the newest, sorted history, filter.",
        "`sorted` grows until its memory is full, then `filter` does.",
        "Only `recent` after a restart: history is still being read from ClickHouse.",
    )
    held = Words(
        "Memory that the dedupe cache takes, by worker.",
        "Up to its bound.",
        "The bound is `MIDSTREAM_DEDUPE_MEMORY_BYTES`; more workers share the history.",
    )
    asked = Words(
        "Mids a second looked up in ClickHouse, by outcome: stored before, or not known.",
        "Few: those that the filter thinks it knows.",
        "Many `unknown`: the filter is too small for the history, or partitions were grown. Each costs a query.",
    )
    return Row(
        "Dedupe",
        [
            Line(
                [
                    lines(
                        "Mids held",
                        "short",
                        mids,
                        {"{{layer}}": gauge(metrics.DEDUPE_MIDS, STORE, "layer")},
                        stacked=True,
                    ),
                    lines(
                        "Memory of mids",
                        "bytes",
                        held,
                        {
                            "{{instance}}": gauge(metrics.DEDUPE_BYTES, STORE, "instance"),
                            "bound of a worker": gauge(metrics.DEDUPE_LIMIT_BYTES, STORE, how="min"),
                        },
                    ),
                    lines(
                        "Looked up in ClickHouse",
                        "cps",
                        asked,
                        {"{{outcome}}": rate_or_zero(metrics.DEDUPE_LOOKUPS, STORE, "outcome")},
                    ),
                ]
            )
        ],
    )


def _dimensions() -> Row:
    hits = Words(
        "Share of a block's objects that are in the cache, by type.",
        "Above 90 % after some minutes.",
        "Low: more objects are in use than the cache holds. Raise `MIDSTREAM_DIMENSION_CACHE_BYTES`.",
    )
    missing = Words(
        "Objects a second that ClickHouse does not have, by type. Their events are stored and flagged.",
        "Few.",
        "A type whose objects are all missing: nobody pushes them, or its source fails. A sync gives them later.",
    )
    cache = Words(
        "Rows and versions that the workers hold.",
        "Level.",
        "Nothing to do; each is bounded.",
    )
    memory = Words(
        "Memory that these rows take.",
        "Up to `MIDSTREAM_DIMENSION_CACHE_BYTES`.",
        "At the bound with few hits, raise it.",
    )
    left_out = Words(
        "Objects a second that events do not carry, as the copies of all would have been too large.",
        "0.",
        "Somebody pushes very large objects: `dimensions` has them by size.",
    )
    erased = Words(
        "Erased users that each worker knows, and events of them that came later and were stored under a pseudonym.",
        "As many as were erased; few events.",
        "Many events: an app still sends what an erased user does.",
    )
    asked = rate(metrics.DIMENSION_LOOKUPS, STORE, "type")
    found = rate(metrics.DIMENSION_LOOKUPS, STORE, "type", outcome="hit")
    misses = rate(metrics.DIMENSION_LOOKUPS, STORE, "type", outcome="missing")
    return Row(
        "Dimensions and erased users",
        [
            Line(
                [
                    lines(
                        "Cache hits",
                        "percentunit",
                        hits,
                        {"{{type}}": or_zero(f"({found} or 0 * {asked}) / ({asked} > 0)", "type")},
                        most=1,
                    ),
                    lines("Missing objects", "cps", missing, {"{{type}}": or_zero(misses, "type")}),
                    lines(
                        "Left out as too large",
                        "cps",
                        left_out,
                        {"objects": rate(metrics.DIMENSION_COPIES_LEFT_OUT, STORE)},
                    ),
                ]
            ),
            Line(
                [
                    lines(
                        "Rows held",
                        "short",
                        cache,
                        {
                            "rows": gauge(metrics.DIMENSION_CACHE_ENTRIES, STORE),
                            "versions": gauge(metrics.DIMENSION_VERSIONS_KNOWN, STORE),
                            "digests": gauge(metrics.ERASED_DIGESTS_HELD, STORE),
                        },
                    ),
                    lines(
                        "Memory of the cache",
                        "bytes",
                        memory,
                        {"{{instance}}": gauge(metrics.DIMENSION_CACHE_BYTES, STORE, "instance")},
                    ),
                    lines(
                        "Erased users known",
                        "short",
                        erased,
                        {"users": gauge(metrics.ERASED_IDS, STORE, how="max")},
                    ),
                    lines(
                        "Events under a pseudonym", "eps", erased, {"events": rate(metrics.PSEUDONYMISED_EVENTS, STORE)}
                    ),
                ]
            ),
        ],
    )
