"""Devices and learners: reports, registrations, where devices are; learners' records from platforms."""

from __future__ import annotations

from grafana_foundation_sdk.models import dashboard as made

from deploy.grafana.board import DEVICES, WORKERS, Line, Row, make_dashboard, more_on
from deploy.grafana.panels import Steps, Words, lines
from deploy.grafana.queries import DEVICES as DEVICES_JOB
from deploy.grafana.queries import JOBS, WEB, gauge, or_zero, quantile, rate, ratio, select
from midstream import metrics


def make() -> made.Dashboard:
    """Return the dashboard."""
    about = "What devices report and how they register, and what learning platforms write of learners."
    jobs = "midstream-(web|collector|api|devices|jobs)"
    return make_dashboard(DEVICES, about, jobs, [_seen(), _reports(), _registry(), _learners()])


def _reports() -> Row:
    came = Words(
        "Reports of devices a second, by outcome, and stored.",
        "Almost all accepted; as many stored a second or two later.",
        "`refused`: a device's key is wrong or its body is. Accepted and not stored: the worker `devices` is behind.",
    )
    visible = Words(
        "Age of the oldest of some reports, by receipt, when it became visible.",
        "A second or two.",
        "See the lag beside; without one ClickHouse is slow.",
    )
    lag = Words(
        "Records of `device.telemetry` not yet acknowledged.",
        "Near 0.",
        "It rises: the worker `devices` is slow or gone.",
    )
    ahead = Words(
        "Reports a second whose own time is five minutes ahead or more.",
        "Few.",
        "Devices with a wrong clock. Their reports count by their receipt.",
    )
    follow = Words(
        "Events of the fleet that wait for those who follow it over `/v1/fleet/stream`.",
        "Near 0.",
        "A follower reads too slowly; it is let go when it is too far behind.",
    )
    cache = Words(
        "Devices whose key and flags are remembered.",
        "As many as report, up to a bound.",
        "At its bound with many misses: more devices are active than are remembered.",
    )
    misses = Words(
        "Times a second that a device was read from the registry.",
        "About one a device and second of traffic.",
        "Many: the registry carries each report. Look at its database.",
    )
    return Row(
        "Reports",
        [
            Line(
                [
                    lines(
                        "Reports",
                        "mps",
                        came,
                        {
                            "{{outcome}}": rate(metrics.DEVICE_REPORTS, WEB, "outcome"),
                            "stored": rate(metrics.STORED_REPORTS, DEVICES_JOB),
                        },
                    ),
                    lines(
                        "Time until visible",
                        "s",
                        visible,
                        {f"p{q}": quantile(q / 100, metrics.REPORT_VISIBLE_SECONDS, DEVICES_JOB) for q in (50, 99)},
                        steps=Steps(10, 60),
                    ),
                    *more_on(
                        WORKERS,
                        lines(
                            "Lag",
                            "short",
                            lag,
                            {"{{topic}}": gauge(metrics.LAG_RECORDS, DEVICES_JOB, "topic", how="max")},
                        ),
                    ),
                ]
            ),
            Line(
                [
                    lines("Reports ahead of time", "mps", ahead, {"ahead": rate(metrics.AHEAD_REPORTS, DEVICES_JOB)}),
                    lines(
                        "Events waiting for followers",
                        "short",
                        follow,
                        {"events": gauge(metrics.FLEET_EVENTS_WAITING, WEB)},
                    ),
                    lines("Devices remembered", "short", cache, {"devices": gauge(metrics.DEVICE_CACHE_ENTRIES, WEB)}),
                    lines("Read from the registry", "cps", misses, {"reads": rate(metrics.DEVICE_CACHE_MISSES, WEB)}),
                ]
            ),
        ],
    )


def _seen() -> Row:
    seen = Words(
        "Devices that reported within the last day, and those of them that are silent now.",
        "Silent ones follow the day: devices that are switched off at night.",
        "Many at once: a network or a site is away. `GET /v1/fleet/devices` shows which.",
    )
    share_silent = Words(
        "Share of the devices of the last day that is silent now.",
        "As on other days at this hour.",
        "A jump: compare with the reports below. If these are refused, the fault is here.",
    )
    silent = gauge(metrics.DEVICES_SEEN, JOBS, how="max", state="silent")
    by_state = gauge(metrics.DEVICES_SEEN, JOBS, "state", how="max")
    return Row(
        "Fleet",
        [
            Line(
                [
                    lines("Devices of the last day", "short", seen, {"{{state}}": by_state}, stacked=True),
                    lines(
                        "Silent devices",
                        "percentunit",
                        share_silent,
                        {"silent": ratio(silent, f"sum({by_state})")},
                        most=1,
                    ),
                ],
                7,
            )
        ],
    )


def _registry() -> Row:
    came = Words(
        "Registrations a second, by outcome.",
        "`written` for new devices, `unchanged` for known ones.",
        "`refused`: bodies that are wrong. `unavailable`: Kafka or ClickHouse is away.",
    )
    waiting = Words(
        "Devices whose row waits to be read, and rows remembered until ClickHouse has them.",
        "Few, and 0 at rest.",
        "Rows that stay unseen: the dimensions' way to ClickHouse is slow; see the workers' dashboard.",
    )
    restored = Words(
        "Attributes a second written again, as two processes registered the same device at once.",
        "0, seldom one.",
        "Many: a device registers twice at the same moment, again and again.",
    )
    places = Words(
        "Internet addresses a second looked up in the file of locations, by outcome.",
        "`found`. 0 without such a file.",
        "`failed`: the file cannot be read; the log says why.",
    )
    age = Words(
        "Age of the file of locations in use; nothing without such a file.",
        "Below a month.",
        "Give a newer file: it is taken within half a minute, without a restart.",
    )
    built = select(metrics.IP_LOCATIONS_BUILT_SECONDS, WEB)
    return Row(
        "Registrations",
        [
            Line(
                [
                    lines(
                        "Registrations",
                        "cps",
                        came,
                        {"{{outcome}}": rate(metrics.DEVICE_REGISTRATIONS, WEB, "outcome")},
                    ),
                    lines(
                        "Rows on their way",
                        "short",
                        waiting,
                        {
                            "to be read": gauge(metrics.DEVICE_LOOKUPS_WAITING, WEB),
                            "not yet in ClickHouse": gauge(metrics.DEVICE_ROWS_UNSEEN, WEB),
                        },
                    ),
                    lines(
                        "Attributes restored",
                        "cps",
                        restored,
                        {"attributes": rate(metrics.DEVICE_ATTRIBUTES_RESTORED, WEB)},
                    ),
                ]
            ),
            Line(
                [
                    lines(
                        "Addresses looked up", "cps", places, {"{{outcome}}": rate(metrics.IP_LOOKUPS, WEB, "outcome")}
                    ),
                    lines(
                        "Age of the file of locations", "s", age, {"oldest": or_zero(f"max(time() - ({built} > 0))")}
                    ),
                ],
                7,
            ),
        ],
    )


def _learners() -> Row:
    writes = Words(
        "Writes of learners' records a second, by outcome.",
        "`created` and `updated`.",
        "`refused`: a platform's body is wrong. `unavailable`: the registry or ClickHouse is away; it tries again.",
    )
    took = Words(
        "Time of a write, from its body to its reply.",
        "Tens of milliseconds.",
        "Writes wait for each other and for ClickHouse: see Records waiting.",
    )
    waiting = Words(
        "Writes and reads that wait to go to ClickHouse, by kind, and stored writes that wait to be published.",
        "Near 0.",
        "Unpublished ones rise while Kafka is away, and are published by themselves afterwards.",
    )
    published = Words(
        "Stored writes a second that were published to Kafka.",
        "As many as are stored.",
        "Fewer: Kafka is away.",
    )
    cache = Words(
        "What is remembered of tokens, standings, users and records, by kind.",
        "Level, up to a bound.",
        "Nothing to do.",
    )
    return Row(
        "Learners' records",
        [
            Line(
                [
                    lines("Writes", "wps", writes, {"{{outcome}}": rate(metrics.ASSIGNMENT_WRITES, WEB, "outcome")}),
                    lines(
                        "Time of a write",
                        "s",
                        took,
                        {f"p{q}": quantile(q / 100, metrics.ASSIGNMENT_SECONDS, WEB) for q in (50, 99)},
                    ),
                    lines(
                        "Waiting",
                        "short",
                        waiting,
                        {
                            "{{kind}}": gauge(metrics.ASSIGNMENTS_WAITING, WEB, "kind"),
                            "to be published": gauge(metrics.ASSIGNMENTS_UNPUBLISHED, WEB),
                        },
                    ),
                ]
            ),
            Line(
                [
                    lines("Published", "wps", published, {"writes": rate(metrics.ASSIGNMENTS_PUBLISHED, WEB)}),
                    lines(
                        "Remembered", "short", cache, {"{{kind}}": gauge(metrics.ACADEMY_CACHE_ENTRIES, WEB, "kind")}
                    ),
                ],
                7,
            ),
        ],
    )
