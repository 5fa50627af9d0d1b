"""The overview: is something wrong, what flows in, through and out, and where what was received stands."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.board import CLICKHOUSE, COLLECTOR, OVERVIEW, WORKERS, Line, Row, make_dashboard, more_on
from deploy.grafana.firing import firing_alerts
from deploy.grafana.panels import Steps, Words, bars, lines, number, states
from deploy.grafana.queries import (
    ALL,
    JOBS,
    STORE,
    VALIDATE,
    WEB,
    gauge,
    increase,
    or_zero,
    quantile,
    rate,
    rate_or_zero,
    ratio,
    select,
    share,
)
from midstream import metrics

_RECEIVED = rate(metrics.RECEIVED_EVENTS, WEB)
_DUPLICATES = rate(metrics.DUPLICATE_EVENTS, STORE)
_REJECTED = rate(metrics.REJECTED_EVENTS, STORE)
_STORED = rate(metrics.STORED_EVENTS, STORE)
_THROUGH = f"{_STORED} + {_DUPLICATES} + {_REJECTED}"
_BEHIND = f"time() - {gauge(metrics.COMPLETE_UNTIL_SECONDS, STORE, how='max')}"
_IN_FLIGHT = gauge(metrics.IN_FLIGHT_EVENTS, STORE, how="max")
_UNACCOUNTED = gauge(metrics.UNACCOUNTED_EVENTS, STORE, how="max")


def make() -> made.Dashboard:
    """Return the dashboard."""
    about = "Is something wrong, what flows in, through and out, and where what was received stands. Begin here."
    return make_dashboard(OVERVIEW, about, ALL, [_now(), _flow(), _stands(), _processes()])


def _now() -> Row:
    firing = Words(
        "Alerts that fire now.",
        "0.",
        "The table below names each. Its links lead to the dashboard that shows the cause and to the runbook.",
    )
    unaccounted = Words(
        "Events that were received, are through the pipeline, and are nowhere; and rows too many.",
        "0, always.",
        "Stop nothing and delete nothing. Run `midstream audit`: it names the batches and where Kafka still has them.",
    )
    behind = Words(
        "How long ago the moment lies before which everything received is stored, duplicate or rejected.",
        "Seconds.",
        "Look at the lag below: the group that is behind is the stage that is slow or away. With no lag, a collector "
        "that is gone holds it: `midstream collectors list`.",
    )
    failed = Words(
        "Share of telemetry requests answered 5xx.",
        "0. Clients send such batches again.",
        "The collector's dashboard shows which bound is reached.",
    )
    waiting = Words(
        "Batches on collectors' disks that Kafka does not have yet.",
        "0.",
        "Kafka is away or slow. Nothing is lost while the spool has room.",
    )
    down = Words(
        "Processes that do not answer Prometheus.",
        "0.",
        "Which one: see Processes below. Its log says why it ended.",
    )
    accepting = Words(
        "Whether a batch posted now would be durable, by the worst collector.",
        "Yes.",
        "No: neither Kafka nor the spool takes batches; clients are answered 503 and keep theirs. See the collector.",
    )
    disk = Words(
        "Free share of the disk that has the least.",
        "Above 20 %.",
        "Make room before it is full. Which disk: see Disks below.",
    )
    return Row(
        "Now",
        [
            Line(
                [
                    number(
                        "Alerts firing",
                        "short",
                        firing,
                        or_zero('count(ALERTS{alertname=~"Midstream.+",alertstate="firing"})'),
                        steps=Steps(red=1),
                    ),
                    *more_on(
                        WORKERS,
                        number("Unaccounted events", "short", unaccounted, _UNACCOUNTED, steps=Steps(red=1)),
                        number("Complete until, behind", "s", behind, _BEHIND, steps=Steps(60, 300), decimals=0),
                    ),
                    number("Processes down", "short", down, or_zero(f"count({_up()} == 0)"), steps=Steps(red=1)),
                ],
                4,
            ),
            Line(
                [
                    *more_on(
                        COLLECTOR,
                        number(
                            "Requests failed",
                            "percentunit",
                            failed,
                            ratio(rate(metrics.REQUESTS, WEB, status="5.."), rate(metrics.REQUESTS, WEB)),
                            steps=Steps(0.001, 0.01),
                            decimals=2,
                        ),
                        number(
                            "Batches in the spool", "short", waiting, gauge(metrics.SPOOL_BATCHES, WEB), steps=Steps(1)
                        ),
                        number(
                            "Accepting",
                            "bool_yes_no",
                            accepting,
                            gauge(metrics.COLLECTOR_ACCEPTING, WEB, how="min"),
                            steps=Steps(red=1, less_is_worse=True),
                        ),
                    ),
                    number(
                        "Least disk free",
                        "percentunit",
                        disk,
                        share(metrics.DISK_FREE_BYTES, metrics.DISK_TOTAL_BYTES, ALL, how="min"),
                        steps=Steps(0.2, 0.1, less_is_worse=True),
                        decimals=0,
                    ),
                ],
                4,
            ),
            Line([firing_alerts()], 6),
        ],
    )


def _flow() -> Row:
    flow = Words(
        "Events a second: received by the collector, judged by validate, and what store made of them.",
        "Received, judged, and stored + duplicates + rejected lie on each other, a second or two apart.",
        "The first line that falls names the stage that is behind or away.",
    )
    shares = Words(
        "Of what went through, the share that was duplicate and the share that was rejected.",
        "Steady. Some duplicates always: clients send again what they have no answer for.",
        "A jump of duplicates: a client does not see its 200, or sends its day again. A jump of rejects: a new version "
        "of an app; the workers' dashboard has the reasons.",
    )
    lag = Words(
        "Age of the oldest record of each topic that each group has not acknowledged.",
        "A second or two.",
        "It rises: that group's workers are slow, or gone. As many workers help as there are partitions.",
    )
    refused = Words(
        "Dead letters a second, by reason code.",
        "Few, and of the same reasons every day.",
        "A new reason or a jump: a new version of an app. `rejects` has the events with their reason and place.",
    )
    visible = Words(
        "Age of a block's oldest event, by receipt, when it became visible in ClickHouse.",
        "A second or two; as much as `MIDSTREAM_SEAL_INTERVAL_MS` and an insert take.",
        "With a lag: the stage that lags. Without one: inserts are slow, see ClickHouse.",
    )
    return Row(
        "Flow",
        [
            Line(
                more_on(
                    WORKERS,
                    lines(
                        "Events in, through and out",
                        "eps",
                        flow,
                        {
                            "received": _RECEIVED,
                            "judged": rate_or_zero(metrics.VALIDATED_EVENTS, VALIDATE),
                            "stored": or_zero(_STORED),
                            "duplicates": _DUPLICATES,
                            "rejected": _REJECTED,
                        },
                    ),
                    lines(
                        "Duplicates and rejects",
                        "percentunit",
                        shares,
                        {"duplicates": ratio(_DUPLICATES, _THROUGH), "rejected": ratio(_REJECTED, _THROUGH)},
                    ),
                ),
                9,
            ),
            Line(
                [
                    *more_on(
                        WORKERS,
                        lines(
                            "Lag by time",
                            "s",
                            lag,
                            {"{{group}} {{topic}}": gauge(metrics.LAG_SECONDS, JOBS, "group", "topic", how="max")},
                            steps=Steps(60, 300),
                        ),
                        lines(
                            "Dead letters by reason",
                            "eps",
                            refused,
                            {"{{reason}}": rate_or_zero(metrics.DEAD_LETTERS, VALIDATE, "reason")},
                            stacked=True,
                        ),
                    ),
                    *more_on(
                        CLICKHOUSE,
                        lines(
                            "Time until visible",
                            "s",
                            visible,
                            {f"p{q}": quantile(q / 100, metrics.VISIBLE_SECONDS, STORE) for q in (50, 99)},
                            steps=Steps(10, 60),
                        ),
                    ),
                ]
            ),
        ],
    )


def _stands() -> Row:
    totals = Words(
        "What was counted in the time shown.",
        "Received = stored + duplicates + rejected + in flight, about: what crosses the ends of the time shown is "
        "counted at one stage only, and of a new series Prometheus does not see the first count.",
        "What does not add up for good is in Unaccounted events; `midstream audit` proves it batch by batch.",
    )
    in_flight = Words(
        "Events received and not through the pipeline yet, and those unaccounted for.",
        "In flight falls to 0 at rest. Unaccounted is 0.",
        "In flight that stays: see the lag. Unaccounted: run `midstream audit`.",
    )
    behind = Words(
        "How far `complete_until` is behind now, and how many collectors hold it.",
        "Seconds. As many collectors as there are processes.",
        "A collector of which nothing was heard holds it until it is retired: `midstream collectors list`.",
    )
    held = Words(
        "Collectors whose marks hold `complete_until`.",
        "As many as there are collector processes.",
        "More: one is gone with its disk. `midstream collectors list` shows which.",
    )
    return Row(
        "Where it stands",
        [
            Line(
                [
                    bars(
                        "Events in the time shown",
                        "short",
                        totals,
                        {
                            "received": increase(metrics.RECEIVED_EVENTS, WEB),
                            "judged": or_zero(increase(metrics.VALIDATED_EVENTS, VALIDATE)),
                            "stored": or_zero(increase(metrics.STORED_EVENTS, STORE)),
                            "duplicates": increase(metrics.DUPLICATE_EVENTS, STORE),
                            "rejected": increase(metrics.REJECTED_EVENTS, STORE),
                            "in flight now": _IN_FLIGHT,
                            "unaccounted now": _UNACCOUNTED,
                        },
                    ),
                    lines(
                        "In flight and unaccounted",
                        "short",
                        in_flight,
                        {"in flight": _IN_FLIGHT, "unaccounted": _UNACCOUNTED},
                    ),
                    lines("Behind over time", "s", behind, {"behind": _BEHIND}, steps=Steps(60, 300)),
                    lines(
                        "Collectors that hold it",
                        "short",
                        held,
                        {"collectors": gauge(metrics.OPEN_COLLECTORS, STORE, how="max")},
                    ),
                ]
            )
        ],
    )


def _processes() -> Row:
    up = Words(
        "Whether each process answers Prometheus.",
        "All up. A short gap is a restart.",
        "Down: its log says why it ended. A worker that ends again and again meets a record or a server that fails it.",
    )
    reachable = Words(
        "Whether Kafka, ClickHouse and the registry answer within two seconds.",
        "All up.",
        "That system, or the network to it, is away. docs/operators.md says what goes on meanwhile.",
    )
    disks = Words(
        "Free share of each disk: of the spool and the home by machine, and ClickHouse's as it says.",
        "Above 20 %.",
        "Make room, or give it more. A full spool refuses batches; a full ClickHouse stops store.",
    )
    versions = Words(
        "Processes by the version that they run, and how many Avro schemas of other versions they have learned.",
        "One version, two during an upgrade.",
        "Two for long: an upgrade stands still.",
    )
    started = Words(
        "Time since each process started.",
        "Days.",
        "A line that falls to 0 is a restart; its log says why.",
    )
    expires = Words(
        "Time until each certificate expires; `none` where no endpoint has one.",
        "Weeks.",
        "Renew it before it is 0: then nobody connects any more.",
    )
    left = f"min by (endpoint) ({select(metrics.CERTIFICATE_EXPIRES_SECONDS, JOBS)} - time())"
    return Row(
        "Processes and what they stand on",
        [
            Line(
                [
                    states("Up", up, _up(), "{{job}} {{instance}}"),
                    states("Reachable", reachable, gauge(metrics.REACHABLE, JOBS, "system", how="min"), "{{system}}"),
                ],
                6,
            ),
            Line(
                [
                    lines(
                        "Disks, free share",
                        "percentunit",
                        disks,
                        {
                            "{{instance}} {{disk}}": share(
                                metrics.DISK_FREE_BYTES, metrics.DISK_TOTAL_BYTES, ALL, "instance", "disk", how="min"
                            )
                        },
                        most=1,
                    ),
                    lines(
                        "Versions",
                        "short",
                        versions,
                        {
                            "{{version}}": f"count by (version) ({select(metrics.BUILD_INFO, ALL)})",
                            "schemas of other versions": gauge(metrics.LEARNED_SCHEMAS, ALL, how="max"),
                        },
                    ),
                    lines(
                        "Time since start",
                        "s",
                        started,
                        {"{{job}} {{instance}}": f"time() - {select(metrics.PROCESS_START_SECONDS, ALL)}"},
                    ),
                    lines("Certificates", "s", expires, {"{{endpoint}}": or_zero(left, "endpoint")}),
                ]
            ),
        ],
    )


def _up() -> str:
    return f'up{{job=~"{ALL}",instance=~"$instance"}}'
