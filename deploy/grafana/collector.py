"""The collector: what comes in, how it is answered, how near its bounds it is, what waits on disk; and the api."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.board import COLLECTOR, Line, Row, make_dashboard
from deploy.grafana.panels import Steps, Words, lines, number
from deploy.grafana.queries import WEB, gauge, increase, quantile, rate, rate_or_zero, ratio, share
from midstream import metrics


def make() -> made.Dashboard:
    """Return the dashboard."""
    about = "What apps post, how they are answered, and how near the collector is to refusing more; the api beside it."
    return make_dashboard(COLLECTOR, about, WEB, [_now(), _requests(), _bounds(), _spool(), _api()])


def _now() -> Row:
    refused = rate(metrics.REQUESTS, WEB, status="5..")
    failed = Words(
        "Share of telemetry requests answered 5xx: nothing of them was taken.",
        "0. Clients send such batches again, so a short burst costs nobody an event.",
        "See which bound is reached below: backlog, spool, or Kafka away for longer than the spool holds.",
    )
    full = Words(
        "Batches that wait to become durable, as a share of how many may. At 100 % requests are answered 503.",
        "Below 50 %. The limit itself shrinks while Kafka is slow.",
        "Look at Kafka first. If Kafka is well, add collector processes.",
    )
    spooled = Words(
        "Batches on the collectors' disks that Kafka does not have yet.",
        "0. It rises while Kafka is away and drains by itself afterwards.",
        "Bring Kafka back. Until then watch how much disk the spool may still take.",
    )
    accepting = Words(
        "Whether a batch posted now would be durable, by the worst collector.",
        "Yes.",
        "No: Kafka is away and the spool is full or its disk fails. Clients are answered 503 and keep their batches.",
    )
    fullest = Words(
        "How full the fullest spool is, of what it may take.",
        "0 %.",
        "At 100 % batches are refused. Bring Kafka back, or raise `MIDSTREAM_SPOOL_MAX_BYTES` where the disk has room.",
    )
    damaged = Words(
        "Bytes of the spool set aside in the time shown, as they could not be read or Kafka refused them.",
        "0.",
        "The files lie beside the spool and the log names them. Check the disk; keep the files.",
    )
    backlog, limit = gauge(metrics.BACKLOG_BATCHES, WEB), gauge(metrics.BACKLOG_LIMIT_BATCHES, WEB)
    set_aside = increase(metrics.SPOOL_DAMAGED_BYTES, WEB)
    return Row(
        "Now",
        [
            Line(
                [
                    number(
                        "Requests failed",
                        "percentunit",
                        failed,
                        ratio(refused, rate(metrics.REQUESTS, WEB)),
                        steps=Steps(0.001, 0.01),
                        decimals=2,
                    ),
                    number("Backlog", "percentunit", full, ratio(backlog, limit), steps=Steps(0.5, 0.9), decimals=1),
                    number("Batches in the spool", "short", spooled, gauge(metrics.SPOOL_BATCHES, WEB), steps=Steps(1)),
                    number(
                        "Accepting",
                        "bool_yes_no",
                        accepting,
                        gauge(metrics.COLLECTOR_ACCEPTING, WEB, how="min"),
                        steps=Steps(red=1, less_is_worse=True),
                    ),
                    number(
                        "Fullest spool",
                        "percentunit",
                        fullest,
                        share(metrics.SPOOL_BYTES, metrics.SPOOL_LIMIT_BYTES, WEB),
                        steps=Steps(0.5, 0.8),
                        decimals=1,
                    ),
                    number("Spool set aside", "bytes", damaged, set_aside, steps=Steps(red=1)),
                ],
                5,
            )
        ],
    )


def _requests() -> Row:
    status = Words(
        "Telemetry requests a second, by HTTP status.",
        "Almost all 200. Some 4xx: clients with a wrong token or body.",
        "Many 401: a credential has ended or a client is wrong. 413 or 400: a client's version is broken. "
        "503: the collector is full, see its bounds below.",
    )
    took = Words(
        "Time from a request's head to its reply, for the middle request, 95 and 99 of a hundred.",
        "Tens of milliseconds; a slow phone's upload counts in it.",
        "If all three rise together, Kafka is slow to acknowledge. If only the upper ones do, it is clients' networks.",
    )
    events = Words(
        "Events and batches a second that became durable.",
        "The course of your fleet's day.",
        "A sudden fall with no failed requests is before the collector: balancer, DNS, clients.",
    )
    volume = Words(
        "Bytes a second of bodies that became durable, as sent (compressed).",
        "It follows the events.",
        "Bytes rising alone mean larger events, or clients that do not compress any more.",
    )
    return Row(
        "Requests",
        [
            Line(
                [
                    lines(
                        "Requests by status",
                        "reqps",
                        status,
                        {"{{status}}": rate(metrics.REQUESTS, WEB, "status")},
                        stacked=True,
                    ),
                    lines(
                        "Time of a request",
                        "s",
                        took,
                        {f"p{q}": quantile(q / 100, metrics.REQUEST_SECONDS, WEB) for q in (50, 95, 99)},
                    ),
                ]
            ),
            Line(
                [
                    lines(
                        "Received",
                        "cps",
                        events,
                        {
                            "events": rate(metrics.RECEIVED_EVENTS, WEB),
                            "batches": rate(metrics.RECEIVED_BATCHES, WEB),
                        },
                    ),
                    lines("Received bytes", "Bps", volume, {"bytes": rate(metrics.RECEIVED_BYTES, WEB)}),
                ]
            ),
        ],
    )


def _bounds() -> Row:
    backlog = Words(
        "Batches that wait to become durable, and how many may.",
        "Far below the limit.",
        "A limit that shrinks says that Kafka is slower than what comes. Add brokers or partitions, or find what "
        "slows their disks.",
    )
    held = Words(
        "Bytes of bodies that the collector holds.",
        "It follows requests times their size, and falls to 0 at rest.",
        "Bodies that stay are slow uploads or a slow Kafka.",
    )
    at_once = Words(
        "Requests under way, and refused ones whose answer waits.",
        "Few; no refusals.",
        "Refusals are answered slowly on purpose, so that a flood costs little. More collectors, or a limit at the "
        "balancer.",
    )
    rebuilds = Words(
        "Kafka producers a second that were given up after a fatal error and made anew.",
        "0. One after a broker's restart is well.",
        "Read `producer` in the collector's log: authorisation and a lost epoch look like this.",
    )
    tokens = Words(
        "Verified tokens that are remembered, and credentials whose requests are counted for the rate limit.",
        "As many as there are clients active, up to a bound.",
        "At its bound, each new client costs a verification; look at the CPU.",
    )
    return Row(
        "Bounds",
        [
            Line(
                [
                    lines(
                        "Backlog and its limit",
                        "short",
                        backlog,
                        {
                            "waiting": gauge(metrics.BACKLOG_BATCHES, WEB),
                            "limit": gauge(metrics.BACKLOG_LIMIT_BATCHES, WEB),
                        },
                    ),
                    lines(
                        "Bytes held", "bytes", held, {"{{instance}}": gauge(metrics.IN_FLIGHT_BYTES, WEB, "instance")}
                    ),
                ]
            ),
            Line(
                [
                    lines(
                        "Requests under way",
                        "short",
                        at_once,
                        {
                            "under way": gauge(metrics.IN_FLIGHT_REQUESTS, WEB),
                            "refusals waiting": gauge(metrics.WAITING_REFUSALS, WEB),
                        },
                    ),
                    lines("Producers made anew", "cps", rebuilds, {"producers": rate(metrics.PRODUCER_REBUILDS, WEB)}),
                    lines(
                        "Credentials remembered",
                        "short",
                        tokens,
                        {
                            "tokens": gauge(metrics.CREDENTIAL_CACHE_ENTRIES, WEB),
                            "under a rate limit": gauge(metrics.RATE_LIMIT_BUCKETS, WEB),
                        },
                    ),
                ]
            ),
        ],
    )


def _spool() -> Row:
    size = Words(
        "Bytes of batches on each collector's disk that Kafka does not have yet.",
        "0.",
        "It may grow to `MIDSTREAM_SPOOL_MAX_BYTES` a process; then batches are refused. Bring Kafka back before.",
    )
    age = Words(
        "Age of the oldest batch in the spool, by receipt.",
        "0, or seconds while it drains.",
        "An age that rises while Kafka is well: the spool of a process that is gone, or a disk that cannot be read.",
    )
    disk = Words(
        "Free bytes of the disk that each spool lies on.",
        "More than the spool may still take.",
        "Make room: a full disk refuses batches as a full spool does.",
    )
    flow = Words(
        "Batches a second written to the spool, given from it to Kafka, and not taken by it.",
        "0 all three.",
        "Not taken: the spool is full or the disk failed. Such requests were answered 503.",
    )
    return Row(
        "Spool",
        [
            Line(
                [
                    lines(
                        "Spool by process", "bytes", size, {"{{instance}}": gauge(metrics.SPOOL_BYTES, WEB, "instance")}
                    ),
                    lines(
                        "Oldest batch in the spool",
                        "s",
                        age,
                        {"{{instance}}": gauge(metrics.SPOOL_OLDEST_AGE_SECONDS, WEB, "instance", how="max")},
                        steps=Steps(60, 600),
                    ),
                    lines(
                        "Disk of the spool, free",
                        "bytes",
                        disk,
                        {"{{instance}}": gauge(metrics.DISK_FREE_BYTES, WEB, "instance", how="min", disk="spool")},
                    ),
                    lines(
                        "Into and out of the spool",
                        "cps",
                        flow,
                        {
                            "written": rate(metrics.SPOOLED_BATCHES, WEB),
                            "drained": rate(metrics.SPOOL_DRAINED_BATCHES, WEB),
                            "not taken": rate(metrics.SPOOL_REFUSED_BATCHES, WEB),
                        },
                    ),
                ]
            )
        ],
    )


def _api() -> Row:
    calls = Words(
        "Bodies judged for `POST /v1/validate`, and mids traced, a second.",
        "Few: people ask these.",
        "A client that validates every batch costs CPU that the collector needs. Ask it to post instead.",
    )
    verdicts = Words(
        "Traces a second by verdict.",
        "Mostly `stored`.",
        "`unknown` for events that a client says it sent: it had no 2xx, or it traces another mid.",
    )
    took = Words(
        "Time of a trace, and how many wait.",
        "Below a second.",
        "Traces read Kafka and ClickHouse: look at both.",
    )
    pushed = Words(
        "Dimension rows a second that were pushed, by outcome.",
        "`accepted`.",
        "`refused` rows were answered with a reason: their sender should look at it.",
    )
    held = Words(
        "Bytes of dimension rows on their way to Kafka.",
        "0 at rest.",
        "It stays high while Kafka is slow.",
    )
    erased = Words(
        "Erased objects that are remembered, so that their rows are refused.",
        "As many as were erased.",
        "Nothing to do.",
    )
    waiting = {"waiting": gauge(metrics.TRACES_WAITING, WEB)}
    return Row(
        "Api",
        [
            Line(
                [
                    lines(
                        "Validations and traces",
                        "reqps",
                        calls,
                        {"validations": rate(metrics.VALIDATIONS, WEB), "traces": rate_or_zero(metrics.TRACES, WEB)},
                    ),
                    lines(
                        "Traces by verdict",
                        "cps",
                        verdicts,
                        {"{{verdict}}": rate_or_zero(metrics.TRACES, WEB, "verdict")},
                    ),
                    lines(
                        "Time of a trace",
                        "s",
                        took,
                        {f"p{q}": quantile(q / 100, metrics.TRACE_SECONDS, WEB) for q in (50, 99)},
                    ),
                    lines("Traces waiting", "short", took, waiting),
                ]
            ),
            Line(
                [
                    lines(
                        "Dimension rows pushed",
                        "rowsps",
                        pushed,
                        {"{{type}} {{outcome}}": rate_or_zero(metrics.DIMENSION_ROWS, WEB, "type", "outcome")},
                    ),
                    lines(
                        "Dimension rows under way",
                        "bytes",
                        held,
                        {"bytes": gauge(metrics.DIMENSION_IN_FLIGHT_BYTES, WEB)},
                    ),
                    lines(
                        "Erased objects remembered",
                        "short",
                        erased,
                        {"objects": gauge(metrics.ERASED_CACHE_ENTRIES, WEB)},
                    ),
                ]
            ),
        ],
    )
