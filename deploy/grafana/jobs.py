"""Jobs: what runs and waits, how it ends, what it changes, and the sources that it reads."""

from __future__ import annotations

from deploy.grafana.board import Line, Row
from deploy.grafana.panels import Words, lines
from deploy.grafana.queries import JOBS, gauge, or_zero, quantile, rate_or_zero
from midstream import metrics


def jobs_row() -> Row:
    """Return the row of the workers' dashboard about them."""
    queue = Words(
        "Jobs (syncs, deletions, erasures) that run now, and that wait.",
        "0 or 1 runs. Few wait.",
        "Jobs wait and none runs: the process `jobs` is away. `midstream jobs list` shows each job.",
    )
    runs = Words(
        "Runs of jobs a second, by kind and how they ended.",
        "`done` and `resweep`.",
        "`failed`: the job says why (`GET /v1/sync/ID`). `lost`: the process stood still for too long.",
    )
    took = Words(
        "Time of a run, and of a correction, 95 of a hundred.",
        "Seconds to minutes.",
        "Corrections grow with the events that an object has. See ClickHouse for the load.",
    )
    changed = Words(
        "Rows a second that jobs changed, by table, and events that got other copies, by type.",
        "0 but while a job runs.",
        "Much all the time: a source changes its objects with every read.",
    )
    kept = Words(
        "Events a second that kept their copy, as the object is too large for so many, by its type.",
        "0.",
        "Make the object smaller, or correct in parts.",
    )
    source = Words(
        "Rows a second read of dimension sources, by type and outcome.",
        "`taken`, while a sync reads.",
        "`refused`: the source has rows that are no objects. The job names the first.",
    )
    reads = Words(
        "Time of a read of a dimension source, 95 of a hundred, by type and outcome.",
        "Seconds to minutes.",
        "Slow or failed: the source. The job says what it met.",
    )
    return Row(
        "Jobs",
        [
            Line(
                [
                    lines(
                        "Jobs",
                        "short",
                        queue,
                        {
                            "running": gauge(metrics.SYNC_RUNNING, JOBS),
                            "waiting": gauge(metrics.SYNC_WAITING, JOBS, how="max"),
                        },
                    ),
                    lines(
                        "Runs by end",
                        "cps",
                        runs,
                        {"{{kind}} {{outcome}}": rate_or_zero(metrics.SYNC_JOBS, JOBS, "kind", "outcome")},
                    ),
                    lines(
                        "Time of a run",
                        "s",
                        took,
                        {
                            "{{kind}}": or_zero(quantile(0.95, metrics.SYNC_SECONDS, JOBS, "kind"), "kind"),
                            "correction": quantile(0.95, metrics.CORRECTION_SECONDS, JOBS),
                        },
                    ),
                    lines(
                        "Rows changed",
                        "rowsps",
                        changed,
                        {
                            "{{table}}": rate_or_zero(metrics.SYNC_ROWS_CHANGED, JOBS, "table"),
                            "events by {{type}}": rate_or_zero(metrics.CORRECTED_EVENTS, JOBS, "type"),
                        },
                    ),
                ]
            ),
            Line(
                [
                    lines(
                        "Copies left as they were",
                        "eps",
                        kept,
                        {"{{type}}": rate_or_zero(metrics.CORRECTIONS_LEFT_OUT, JOBS, "type")},
                    ),
                    lines(
                        "Rows read of sources",
                        "rowsps",
                        source,
                        {"{{type}} {{outcome}}": rate_or_zero(metrics.SOURCE_ROWS, JOBS, "type", "outcome")},
                    ),
                    lines(
                        "Time of a source's read",
                        "s",
                        reads,
                        {
                            "{{type}} {{outcome}}": or_zero(
                                quantile(0.95, metrics.SOURCE_READ_SECONDS, JOBS, "type", "outcome"), "type", "outcome"
                            )
                        },
                    ),
                ]
            ),
        ],
    )
