"""PromQL, made from the declarations in ``midstream/metrics.py``: a metric or a label that is not declared is an error.

Every process declares all metrics and counts its own, so that each query says whose it wants. Counters and histograms
are added up over processes; a gauge that several workers publish of the same thing (the accounting) is taken once.
"""

from __future__ import annotations

from typing import Literal

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

WEB = "midstream-(web|collector|api)"
"""Those who answer HTTP: one job on one machine, two where they run apart."""
VALIDATE = "midstream-validate"
STORE = "midstream-store"
DEVICES = "midstream-devices"
JOBS = "midstream-jobs"
WORKERS = "midstream-(validate|store|devices|jobs)"
ALL = "midstream-.+"

_OF_PROMETHEUS = {"job", "instance"}


def name_of(metric: MetricWrapperBase) -> str:
    """Return the name by which a counter or gauge is exposed, or what a histogram's samples begin with."""
    (family,) = metric.describe()
    return str(family.name) + ("_total" if isinstance(metric, Counter) else "")


def select(metric: MetricWrapperBase, jobs: str, suffix: str = "", **where: str) -> str:
    """Return the samples of a metric of some jobs (a regular expression), as the dashboard's instances are chosen.

    ``where`` are labels with the regular expressions that they have to match.

    Raises:
        ValueError: the metric has no such label.
    """
    _check_labels(metric, where)
    matchers = {"job": jobs, "instance": "$instance", **where}
    inner = ",".join(f'{label}=~"{pattern}"' for label, pattern in matchers.items())
    return f"{name_of(metric)}{suffix}{{{inner}}}"


def rate(metric: Counter, jobs: str, *by: str, **where: str) -> str:
    """Return how much a counter grows in a second, over all processes, by some of its labels."""
    _check_labels(metric, by)
    return _aggregate("sum", f"rate({select(metric, jobs, **where)}[$__rate_interval])", by)


def increase(metric: Counter, jobs: str, *by: str, **where: str) -> str:
    """Return how much a counter grew in the time shown, over all processes."""
    _check_labels(metric, by)
    return _aggregate("sum", f"increase({select(metric, jobs, **where)}[$__range])", by)


def gauge(metric: Gauge, jobs: str, *by: str, how: Literal["sum", "max", "min"] = "sum", **where: str) -> str:
    """Return a gauge over all processes, by some of its labels."""
    _check_labels(metric, by)
    return _aggregate(how, select(metric, jobs, **where), by)


def quantile(share: float, metric: Histogram, jobs: str, *by: str, **where: str) -> str:
    """Return the value below which a share (0 to 1) of what a histogram observed lies, by some of its labels.

    NaN while nothing is observed.
    """
    _check_labels(metric, by)
    buckets = _aggregate("sum", f"rate({select(metric, jobs, '_bucket', **where)}[$__rate_interval])", (*by, "le"))
    return f"histogram_quantile({share}, {buckets})"


def observed(metric: Histogram, jobs: str, *by: str, **where: str) -> str:
    """Return how often in a second something is observed."""
    _check_labels(metric, by)
    return _aggregate("sum", f"rate({select(metric, jobs, '_count', **where)}[$__rate_interval])", by)


def busy(metric: Histogram, jobs: str, *by: str, **where: str) -> str:
    """Return how much of a second's time what a histogram of seconds observes takes, over all processes."""
    _check_labels(metric, by)
    return _aggregate("sum", f"rate({select(metric, jobs, '_sum', **where)}[$__rate_interval])", by)


def share(part: Gauge, whole: Gauge, jobs: str, *by: str, how: Literal["max", "min"] = "max", **where: str) -> str:
    """Return the greatest or least share that a gauge is of another of the same labels, by some of them."""
    _check_labels(part, by)
    return _aggregate(how, f"{select(part, jobs, **where)} / {select(whole, jobs, **where)}", by)


def or_zero(query: str, *labels: str) -> str:
    """Return 0, its labels "none", where a query has no result at all: of what never happened there is no sample."""
    zero = "vector(0)"
    for label in labels:
        zero = f'label_replace({zero}, "{label}", "none", "", "")'
    return f"({query}) or on() {zero}"


def rate_or_zero(metric: Counter, jobs: str, *by: str) -> str:
    """Return :func:`rate`, and 0 of "none" while nothing of it ever happened."""
    return or_zero(rate(metric, jobs, *by), *by)


def ratio(part: str, whole: str) -> str:
    """Return a part's share, 0 where there is no whole."""
    return f"(({part}) / (({whole}) > 0)) or on() vector(0)"


def _aggregate(how: str, inner: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)}) ({inner})" if by else f"{how}({inner})"


def _check_labels(metric: MetricWrapperBase, labels: object) -> None:
    unknown = set(labels) - set(metric._labelnames) - _OF_PROMETHEUS  # type: ignore[call-overload]
    if unknown:
        raise ValueError(f"{name_of(metric)} has no label {', '.join(sorted(unknown))}")
