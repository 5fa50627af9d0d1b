"""ClickHouse, as those who write to it see it: how long inserts take, which are tried again, what they bring."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.board import CLICKHOUSE, WORKERS, Line, Row, make_dashboard, more_on
from deploy.grafana.panels import Steps, Words, lines, number, states
from deploy.grafana.queries import (
    ALL,
    DEVICES,
    JOBS,
    STORE,
    WEB,
    busy,
    gauge,
    increase,
    observed,
    or_zero,
    quantile,
    rate_or_zero,
    share,
)
from midstream import metrics


def make() -> made.Dashboard:
    """Return the dashboard."""
    about = "ClickHouse as those who write to it see it: how long inserts take, which fail, and what waits for them."
    return make_dashboard(CLICKHOUSE, about, ALL, [_now(), _inserts(), _server(), _waits()])


def _now() -> Row:
    again = Words(
        "Inserts tried again in the time shown.",
        "0.",
        "ClickHouse refused or did not answer: overload, too many parts, a full disk, a restart. The worker's log has "
        "its words. Nothing is stored twice: the same body goes under the same token.",
    )
    repeated = Words(
        "Inserts whose token ClickHouse knew and whose rows were not there, in the time shown.",
        "0. A server that was cut off while it wrote makes some.",
        "Check the server's disk: it had promised rows that it does not have. They were inserted again.",
    )
    slow = Words("Time of an insert, 99 of a hundred.", "Below a second.", "Look at merges, parts and the disk.")
    log = Words(
        "Rows of `block_rows` that are not written yet.",
        "Few.",
        "It rises while ClickHouse is slow.",
    )
    return Row(
        "Now",
        [
            Line(
                [
                    number(
                        "Inserts tried again",
                        "short",
                        again,
                        or_zero(increase(metrics.INSERT_RETRIES, ALL)),
                        steps=Steps(1, 20),
                        decimals=0,
                    ),
                    number(
                        "Inserts repeated",
                        "short",
                        repeated,
                        or_zero(increase(metrics.INSERTS_REPEATED, ALL)),
                        steps=Steps(1),
                        decimals=0,
                    ),
                    number("Slow inserts", "s", slow, quantile(0.99, metrics.INSERT_SECONDS, ALL), steps=Steps(2, 10)),
                    number(
                        "Block log waiting",
                        "short",
                        log,
                        gauge(metrics.BLOCK_LOG_ROWS, STORE),
                        steps=Steps(1_000, 10_000),
                    ),
                ],
                5,
            )
        ],
    )


def _inserts() -> Row:
    took = Words(
        "Time of an insert by table, of the middle one and 99 of a hundred.",
        "Tens of milliseconds; the 99th below a second.",
        "All tables slow: the server's disk, merges or memory. One table: its parts.",
    )
    often = Words(
        "Inserts a second by table.",
        "A few a second and partition.",
        "Many small ones make many parts: lengthen `MIDSTREAM_SEAL_INTERVAL_MS`.",
    )
    share = Words(
        "Inserts under way at once, on average, by table: seconds of inserting in a second.",
        "Far below the number of workers.",
        "As many as there are workers: they wait for ClickHouse all the time. A larger server, or shards.",
    )
    rows = Words(
        "Events a second stored, by table.",
        "The course of your fleet's day.",
        "One table stands still: its rules in docs/events.md, or its inserts fail.",
    )
    again = Words(
        "Inserts tried again a second, and repeated as their rows were not there, by table.",
        "0.",
        "The worker's log has what ClickHouse said.",
    )
    return Row(
        "Inserts",
        [
            Line(
                [
                    lines(
                        "Time of an insert",
                        "s",
                        took,
                        {
                            f"{{{{table}}}} p{q}": quantile(q / 100, metrics.INSERT_SECONDS, ALL, "table")
                            for q in (50, 99)
                        },
                        steps=Steps(2, 10),
                    ),
                    lines("Inserts", "cps", often, {"{{table}}": observed(metrics.INSERT_SECONDS, ALL, "table")}),
                ],
                10,
            ),
            Line(
                [
                    lines("Inserts at once", "short", share, {"{{table}}": busy(metrics.INSERT_SECONDS, ALL, "table")}),
                    lines(
                        "Events stored",
                        "eps",
                        rows,
                        {"{{table}}": rate_or_zero(metrics.STORED_EVENTS, STORE, "table")},
                    ),
                    lines(
                        "Tried again, repeated",
                        "cps",
                        again,
                        {
                            "{{table}} again": rate_or_zero(metrics.INSERT_RETRIES, ALL, "table"),
                            "{{table}} repeated": rate_or_zero(metrics.INSERTS_REPEATED, ALL, "table"),
                        },
                    ),
                ]
            ),
        ],
    )


def _server() -> Row:
    reachable = Words(
        "Whether ClickHouse answers within two seconds.",
        "Up.",
        "Down: what store has not written stays in Kafka, learners' records are 503. Bring the server back.",
    )
    parts = Words(
        "Active parts of the partition that has the most, by table, and from how many on inserts are delayed.",
        "Far below the limit.",
        "They rise: merges do not keep up. Fewer and larger inserts, a faster disk, or less else on the server.",
    )
    memory = Words(
        "Memory that ClickHouse counts as its own, and how much it may take.",
        "Below the limit, with room for a large query.",
        "At the limit queries fail: see what analysts run (`system.processes`).",
    )
    disk = Words(
        "Free share of each of ClickHouse's disks.",
        "Above 20 %. Merges need room.",
        "Give it more, or shorten what is kept. When it is full, store waits and nothing is lost.",
    )
    up = gauge(metrics.REACHABLE, JOBS, "system", how="min", system="clickhouse")
    free = share(metrics.DISK_FREE_BYTES, metrics.DISK_TOTAL_BYTES, JOBS, "disk", how="min", disk="clickhouse/.*")
    return Row(
        "Server",
        [
            Line(
                [
                    states("Reachable", reachable, up, "{{system}}"),
                    lines(
                        "Parts of a partition",
                        "short",
                        parts,
                        {
                            "{{table}}": gauge(metrics.PARTITION_PARTS, JOBS, "table", how="max"),
                            "limit": gauge(metrics.PARTITION_PARTS_LIMIT, JOBS, how="min"),
                        },
                    ),
                    lines(
                        "Memory",
                        "bytes",
                        memory,
                        {
                            "taken": gauge(metrics.CLICKHOUSE_MEMORY_BYTES, JOBS, how="max"),
                            "limit": gauge(metrics.CLICKHOUSE_MEMORY_LIMIT_BYTES, JOBS, how="min"),
                        },
                    ),
                    lines("Disks, free share", "percentunit", disk, {"{{disk}}": free}, most=1),
                ],
                9,
            )
        ],
    )


def _waits() -> Row:
    block = Words(
        "Time of a block of events from read to acknowledged.",
        "A little more than its inserts.",
        "Far more than its inserts: the worker's CPU.",
    )
    visible = Words(
        "Age of the oldest event, and of the oldest report of a device, when it became visible.",
        "A second or two.",
        "With a lag it is the lag.",
    )
    lookups = Words(
        "Mids a second that store looks up in ClickHouse to tell duplicates.",
        "Few.",
        "Many: see Dedupe on the workers' dashboard.",
    )
    records = Words(
        "Writes and reads of learners' records that wait for ClickHouse, by kind.",
        "Near 0.",
        "They wait: ClickHouse is slow. Beyond a bound they are 503.",
    )
    return Row(
        "Who waits for it",
        [
            Line(
                [
                    *more_on(
                        WORKERS,
                        lines(
                            "Time of a block",
                            "s",
                            block,
                            {f"p{q}": quantile(q / 100, metrics.BLOCK_SECONDS, STORE) for q in (50, 99)},
                        ),
                        lines(
                            "Time until visible",
                            "s",
                            visible,
                            {
                                "events p99": quantile(0.99, metrics.VISIBLE_SECONDS, STORE),
                                "reports p99": quantile(0.99, metrics.REPORT_VISIBLE_SECONDS, DEVICES),
                            },
                        ),
                        lines("Mids looked up", "cps", lookups, {"mids": rate_or_zero(metrics.DEDUPE_LOOKUPS, STORE)}),
                    ),
                    lines(
                        "Records waiting",
                        "short",
                        records,
                        {"{{kind}}": gauge(metrics.ASSIGNMENTS_WAITING, WEB, "kind")},
                    ),
                ]
            )
        ],
    )
