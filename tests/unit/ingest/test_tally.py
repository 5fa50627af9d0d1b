"""What requests add up to is told a moment later, whole, and once."""

import asyncio

from prometheus_client import REGISTRY

from ingest.backlog import Backlog, Refusals
from ingest.limits import BytesInFlight, RequestsInFlight
from ingest.tally import Tally


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"midstream_{name}", labels) or 0.0


def told() -> tuple[float, ...]:
    return (
        metric("received_batches_total"),
        metric("received_events_total"),
        metric("received_bytes_total"),
        metric("requests_total", status="200"),
        metric("requests_total", status="503"),
    )


def count(tally: Tally) -> None:
    tally.begin()
    for events, size in ((20, 15_000), (1, 700)):
        tally.receive(events, size)
        tally.reply(200)
    tally.reply(503)


async def test_it_tells_by_itself_and_nothing_twice() -> None:
    tally = Tally(RequestsInFlight(10), BytesInFlight(1_000), Backlog(10), Refusals())
    before = told()
    count(tally)
    assert told() == before
    async with asyncio.timeout(10):
        while told() == before:  # noqa: ASYNC110  asks another party
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    tally.tell()
    assert [after - was for after, was in zip(told(), before, strict=True)] == [2, 21, 15_700, 2, 1]


async def test_at_the_end_nothing_is_left_untold() -> None:
    tally = Tally(RequestsInFlight(10), BytesInFlight(1_000), Backlog(10), Refusals())
    before = told()
    count(tally)
    tally.tell()
    assert [after - was for after, was in zip(told(), before, strict=True)] == [2, 21, 15_700, 2, 1]
    count(tally)  # and it begins again
    tally.tell()
    assert [after - was for after, was in zip(told(), before, strict=True)] == [4, 42, 31_400, 4, 2]


async def test_what_is_under_way_is_shown() -> None:
    requests = RequestsInFlight(10)
    backlog = Backlog(10)
    tally = Tally(requests, BytesInFlight(1_000), backlog, Refusals())
    assert requests.enter()
    entered = backlog.enter()
    tally.tell()
    assert metric("in_flight_requests") == 1
    assert (metric("backlog_batches"), metric("backlog_limit_batches")) == (1, 10)
    backlog.leave(entered)
    requests.leave()
    tally.tell()
    assert metric("in_flight_requests") == metric("backlog_batches") == 0
