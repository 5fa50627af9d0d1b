"""The workers: whether they keep up, what each takes of its machine, what validate and store make of events."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.board import CLICKHOUSE, WORKERS, Line, Row, make_dashboard, more_on
from deploy.grafana.jobs import jobs_row
from deploy.grafana.panels import Steps, Words, lines, number, states
from deploy.grafana.queries import ALL, JOBS, STORE, VALIDATE, gauge, quantile, rate, rate_or_zero, select
from deploy.grafana.queries import WORKERS as WORKER_JOBS
from deploy.grafana.remembered import remembered
from midstream import metrics

_CHOSEN = "$job"


def make() -> made.Dashboard:
    """Return the dashboard."""
    about = "How validate, store, devices and jobs keep up, what they decide, and what each takes of its machine."
    rows = [_health(), _processes(), _validate(), _store(), *remembered(), jobs_row()]
    return make_dashboard(WORKERS, about, WORKER_JOBS, rows, choose_job=True)


def _health() -> Row:
    suspect = Words(
        "Records at which a worker failed or died, and that have not gone through since.",
        "0.",
        "Tries are under way; after `MIDSTREAM_RECORD_TRIES` the event is parked and the rest goes on. "
        "The log has `record.failed` with topic, partition and offset.",
    )
    poison = Words(
        "Records a second of which something was parked after the last try.",
        "0.",
        "`SELECT * FROM rejects WHERE code = 'POISON'` has them. Mend the cause, then post them again.",
    )
    fatal = Words(
        "Errors a second that ended a worker. It is started again.",
        "0; a few when Kafka or ClickHouse restarts.",
        "The end of the worker's log has the error. Again and again at the same place: a server, or a record.",
    )
    waits = Words(
        "Blocks of the former number of partitions that validate waits for store to store.",
        "0. After `midstream partitions grow` it falls to 0 within a minute.",
        "It does not fall: store is away or behind.",
    )
    lag = Words(
        "Records of each topic that each group has not acknowledged.",
        "Below a few hundred, and back to 0 at rest.",
        "Add workers up to the number of partitions. If CPU is idle too, ClickHouse or Kafka is slow.",
    )
    behind = Words(
        "Age of the oldest record of each topic that each group has not acknowledged.",
        "A second or two.",
        "It rises while the records do not: a worker stands still. Both rise: more comes than the workers take.",
    )
    taken = Words(
        "Bytes of Kafka records under work at once.",
        "It follows the load, up to a bound.",
        "At its bound all the time, the worker is saturated: add workers.",
    )
    return Row(
        "Health",
        [
            Line(
                [
                    number(
                        "Suspect records", "short", suspect, gauge(metrics.SUSPECT_RECORDS, _CHOSEN), steps=Steps(1, 10)
                    ),
                    number(
                        "Waiting for store",
                        "short",
                        waits,
                        gauge(metrics.WAITING_FOR_STORE_BLOCKS, VALIDATE),
                        steps=Steps(1),
                    ),
                    lines(
                        "Parked records",
                        "recps",
                        poison,
                        {"{{stage}}": rate_or_zero(metrics.POISON_RECORDS, _CHOSEN, "stage")},
                    ),
                    lines(
                        "Fatal errors",
                        "cps",
                        fatal,
                        {"{{stage}}": rate_or_zero(metrics.FATAL_ERRORS, _CHOSEN, "stage")},
                    ),
                ],
                6,
            ),
            Line(
                [
                    lines(
                        "Lag by time",
                        "s",
                        behind,
                        {"{{group}} {{topic}}": gauge(metrics.LAG_SECONDS, JOBS, "group", "topic", how="max")},
                        steps=Steps(60, 300),
                    ),
                    lines(
                        "Lag in records",
                        "short",
                        lag,
                        {
                            "{{group}} {{topic}}": gauge(
                                metrics.LAG_RECORDS, "midstream-(store|devices)", "group", "topic", how="max"
                            )
                        },
                    ),
                    lines(
                        "Bytes under work",
                        "bytes",
                        taken,
                        {"{{job}} {{topic}}": gauge(metrics.TAKEN_BYTES, _CHOSEN, "job", "topic")},
                    ),
                ]
            ),
        ],
    )


def _processes() -> Row:
    up = Words(
        "Whether each process of Midstream answers Prometheus, not of the workers alone.",
        "All up. A short gap is a restart.",
        "Down: the end of its log says why. The others take over its partitions.",
    )
    cpu = Words(
        "Processor cores that each worker uses.",
        "Well below 1: a worker is one process.",
        "Near 1 with a lag: add a worker of this stage.",
    )
    memory = Words(
        "Memory that each worker holds.",
        "Level after its caches are full. `store` holds the dedupe cache.",
        "It rises without end: restart that worker, nothing is lost, and report it.",
    )
    files = Words(
        "Open files and sockets of each worker, as a share of how many it may open.",
        "A few per cent.",
        "Raise the limit, and report what leaks.",
    )
    age = Words(
        "Time since each process started, of all.",
        "Days.",
        "A line that falls to 0 is a restart; many mean a worker that ends again and again: see Fatal errors.",
    )
    chosen = f'job=~"{_CHOSEN}",instance=~"$instance"'
    who = "{{job}} {{instance}}"
    return Row(
        "Processes",
        [
            Line([states("Up", up, f'up{{job=~"{ALL}",instance=~"$instance"}}', who)], 7),
            Line(
                [
                    lines(
                        "Processor",
                        "short",
                        cpu,
                        {who: f"rate(process_cpu_seconds_total{{{chosen}}}[$__rate_interval])"},
                    ),
                    lines("Memory", "bytes", memory, {who: f"process_resident_memory_bytes{{{chosen}}}"}),
                    lines(
                        "Open files",
                        "percentunit",
                        files,
                        {who: f"process_open_fds{{{chosen}}} / process_max_fds{{{chosen}}}"},
                        steps=Steps(0.7, 0.9),
                    ),
                    lines(
                        "Time since start",
                        "s",
                        age,
                        {who: f"time() - {select(metrics.PROCESS_START_SECONDS, ALL)}"},
                    ),
                ]
            ),
        ],
    )


def _validate() -> Row:
    judged = Words(
        "Events a second that were judged, by verdict.",
        "Almost all valid.",
        "Refused ones rise: the reasons stand beside.",
    )
    reasons = Words(
        "Dead letters a second, by reason code.",
        "Few, and of the same reasons every day.",
        "A new reason or a jump: a new version of an app. `rejects` has the events with their reason and place; "
        "docs/events.md says what each code means and what the sender should do.",
    )
    batches = Words(
        "Batches a second that were split and judged, and blocks sealed, by topic.",
        "Blocks are far fewer than events.",
        "As many blocks as events: `MIDSTREAM_SEAL_INTERVAL_MS` is too short for so little traffic, and every insert "
        "costs.",
    )
    rows = Words(
        "Rows of a sealed block: of the middle one, and the largest of twenty.",
        "Hundreds under load. Small at rest.",
        "Small blocks under load: too many partitions, or too short an interval.",
    )
    held = Words(
        "Bytes of event text in blocks that are not sealed yet.",
        "It goes up and down with each block.",
        "It stays high: Kafka does not acknowledge.",
    )
    return Row(
        "Validate",
        [
            Line(
                [
                    lines(
                        "Events judged",
                        "eps",
                        judged,
                        {"{{verdict}}": rate_or_zero(metrics.VALIDATED_EVENTS, VALIDATE, "verdict")},
                    ),
                    lines(
                        "Dead letters by reason",
                        "eps",
                        reasons,
                        {"{{reason}}": rate_or_zero(metrics.DEAD_LETTERS, VALIDATE, "reason")},
                        stacked=True,
                    ),
                ]
            ),
            Line(
                [
                    lines(
                        "Batches and blocks",
                        "cps",
                        batches,
                        {
                            "batches": rate(metrics.VALIDATED_BATCHES, VALIDATE),
                            "blocks of {{topic}}": rate_or_zero(metrics.SEALED_BLOCKS, VALIDATE, "topic"),
                        },
                    ),
                    lines(
                        "Rows of a block",
                        "short",
                        rows,
                        {f"p{q}": quantile(q / 100, metrics.SEALED_ROWS, VALIDATE) for q in (50, 95)},
                    ),
                    lines(
                        "Bytes not sealed",
                        "bytes",
                        held,
                        {"{{instance}}": gauge(metrics.VALIDATE_BUFFER_BYTES, VALIDATE, "instance")},
                    ),
                ]
            ),
        ],
    )


def _store() -> Row:
    became = Words(
        "Events a second by what store made of them. Replays are arrivals seen again inside the pipeline.",
        "Mostly stored. Replays only after a restart of a worker.",
        "Replays all the time: workers restart, or the spool drains twice. They are counted nowhere else.",
    )
    block = Words(
        "Time of a block from read to acknowledged.",
        "Tens to hundreds of milliseconds.",
        "Compare with the time of an insert on the ClickHouse dashboard; the rest is the worker's own CPU.",
    )
    visible = Words(
        "Age of a block's oldest event, by receipt, when it became visible.",
        "A second or two.",
        "High with a lag: it is the lag. High without: inserts are slow.",
    )
    receipts = Words(
        "Batches a second written to `batches`, which the accounting compares with.",
        "As many as are received.",
        "It is behind: a worker of store is slow or ClickHouse is.",
    )
    return Row(
        "Store",
        [
            Line(
                [
                    *more_on(
                        CLICKHOUSE,
                        lines(
                            "What became of events",
                            "eps",
                            became,
                            {
                                "stored": rate_or_zero(metrics.STORED_EVENTS, STORE),
                                "duplicates": rate(metrics.DUPLICATE_EVENTS, STORE),
                                "rejected": rate(metrics.REJECTED_EVENTS, STORE),
                                "replays": rate(metrics.REPLAYED_EVENTS, STORE),
                            },
                        ),
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
                            {f"p{q}": quantile(q / 100, metrics.VISIBLE_SECONDS, STORE) for q in (50, 99)},
                            steps=Steps(10, 60),
                        ),
                    ),
                    lines("Receipts stored", "cps", receipts, {"batches": rate(metrics.RECEIPTS_STORED, STORE)}),
                ]
            )
        ],
    )
