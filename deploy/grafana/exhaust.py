"""Exhaust: what partners download, how fast it begins, and what is kept and built for them."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.board import EXHAUST, Line, Row, make_dashboard
from deploy.grafana.panels import Steps, Words, lines, number
from deploy.grafana.queries import WEB, gauge, increase, quantile, rate, ratio
from midstream import metrics


def make() -> made.Dashboard:
    """Return the dashboard."""
    return make_dashboard(
        EXHAUST, "Partners' downloads, and what is built and kept for them.", WEB, [_now(), _downloads(), _kept()]
    )


def _now() -> Row:
    came = Words(
        "Downloads in the time shown that were sent whole.",
        "As your partners ask.",
        "None where some are usual: ask the partner what it is answered; `exhaust_downloads` has each.",
    )
    broken = Words(
        "Share of the downloads in the time shown that broke off.",
        "0. A partner may go on where it stopped.",
        "Partners' networks, or a build that failed: the log has `exhaust`.",
    )
    lost = Words(
        "Rows of the log of downloads that were not written in the time shown, as too many waited.",
        "0.",
        "ClickHouse is away or slow. The downloads themselves are whole.",
    )
    waiting = Words(
        "Requests for downloads that wait or are being built.",
        "Few.",
        "It only rises: builds fail or are too large; each request says its state.",
    )
    all_ends = increase(metrics.EXHAUST_DOWNLOADS, WEB)
    return Row(
        "Now",
        [
            Line(
                [
                    number(
                        "Downloads",
                        "short",
                        came,
                        increase(metrics.EXHAUST_DOWNLOADS, WEB, end="complete"),
                        steps=Steps(),
                        decimals=0,
                    ),
                    number(
                        "Broken off",
                        "percentunit",
                        broken,
                        ratio(increase(metrics.EXHAUST_DOWNLOADS, WEB, end="broken"), all_ends),
                        steps=Steps(0.05, 0.25),
                        decimals=1,
                    ),
                    number(
                        "Log rows dropped",
                        "short",
                        lost,
                        increase(metrics.EXHAUST_LOG_DROPPED, WEB),
                        steps=Steps(1),
                        decimals=0,
                    ),
                    number(
                        "Requests open",
                        "short",
                        waiting,
                        gauge(metrics.EXHAUST_REQUESTS_OPEN, WEB, how="max"),
                        steps=Steps(20, 100),
                    ),
                ],
                5,
            )
        ],
    )


def _downloads() -> Row:
    ends = Words(
        "Downloads a second, by how they ended.",
        "`complete`.",
        "`broken`: the partner went away, or a part could not be read.",
    )
    sent = Words(
        "Bytes a second sent to partners.",
        "Bursts in the morning: days close at midnight UTC.",
        "At the network's bound the collector suffers too; run the api apart.",
    )
    first = Words(
        "Time from a download's reply to its first byte taken.",
        "Below a second for a day that is built. Seconds for one that is not.",
        "Builds wait for ClickHouse: see its dashboard.",
    )
    return Row(
        "Downloads",
        [
            Line(
                [
                    lines("Downloads by end", "cps", ends, {"{{end}}": rate(metrics.EXHAUST_DOWNLOADS, WEB, "end")}),
                    lines("Bytes sent", "Bps", sent, {"bytes": rate(metrics.EXHAUST_SENT_BYTES, WEB)}),
                    lines(
                        "Time to the first byte",
                        "s",
                        first,
                        {f"p{q}": quantile(q / 100, metrics.EXHAUST_FIRST_BYTE_SECONDS, WEB) for q in (50, 99)},
                    ),
                ],
                9,
            )
        ],
    )


def _kept() -> Row:
    days = Words(
        "Built days that are kept, and requests whose archives are being built.",
        "Up to what the folder may take.",
        "Days are dropped, the oldest unused first, when there is no more room, and built again when asked for.",
    )
    held = Words(
        "Bytes of built days, and of archives built at a request that have not expired.",
        "Below `MIDSTREAM_EXHAUST_BYTES`.",
        "At the bound days are built again and again: give it more disk.",
    )
    cache = Words(
        "What is remembered of licences, datasets and rights, by kind.",
        "Level, up to a bound.",
        "Nothing to do.",
    )
    return Row(
        "Kept and built",
        [
            Line(
                [
                    lines("Days kept", "short", days, {"days": gauge(metrics.EXHAUST_KEPT_DAYS, WEB, how="max")}),
                    lines(
                        "Disk",
                        "bytes",
                        held,
                        {
                            "days": gauge(metrics.EXHAUST_KEPT_BYTES, WEB, how="max"),
                            "archives": gauge(metrics.EXHAUST_REQUEST_BYTES, WEB, how="max"),
                        },
                    ),
                    lines(
                        "Remembered", "short", cache, {"{{kind}}": gauge(metrics.EXHAUST_CACHE_ENTRIES, WEB, "kind")}
                    ),
                ]
            )
        ],
    )
