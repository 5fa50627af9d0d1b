"""A pipeline of real processes for the whole session, and those who use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration import containers
from tests.integration.closed_days import ClosedDays, run_closed_days
from tests.integration.jobs import REPAIR_MS, write_sources
from tests.integration.outside import Outside, processes_of
from tests.support.faketime import why_no_faketime
from tests.support.ip_locations import SOME_ADDRESS, city_record, write_locations
from tests.support.pipeline import Pipeline


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip here, not in the fixture: the summary then has one line for all."""
    if item.get_closest_marker("docker") and (reason := containers.why_no_docker()):
        pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the first test in containers the time to fetch their images."""
    for item in items:
        if item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.timeout(900))
            return


@pytest.fixture(scope="session", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A running pipeline that all tests share: none may kill its processes or count all that is stored.

    Every test that uses it runs twice: against the local Kafka and ClickHouse engine, and against real servers in
    containers where a Docker engine answers.
    """
    home = tmp_path_factory.mktemp("shared") / "a home"
    common = {
        "ip_locations": write_locations(home.with_name("places.mmdb"), {SOME_ADDRESS: city_record("Kerala", "Kochi")}),
        "dimension_sources": write_sources(home.with_name("sources")),
        "dimension_repair_ms": REPAIR_MS,
    }
    if request.param == "local":
        with Pipeline(home, **common) as running:
            yield running
    else:
        with containers.stores() as settings, Pipeline(home, **common, **settings) as running:
            yield running


@pytest.fixture(scope="session")
def outside(pipeline: Pipeline) -> Iterator[Outside]:
    """Clients of the shared pipeline."""
    clients = Outside(pipeline)
    yield clients
    clients.close()


@pytest.fixture(scope="module")
def untouched(outside: Outside) -> Iterator[None]:
    """No process is another after these tests, and none has failed a request."""

    def failures() -> list[str]:
        page = outside.http.get("/metrics").text
        return [line for line in page.splitlines() if line.startswith('midstream_requests_total{status="5')]

    before, failed = processes_of(outside.pipeline), failures()
    assert len(before["web"]) == 3
    yield
    assert processes_of(outside.pipeline) == before
    assert failures() == failed


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A local pipeline for tests that stop and restart its parts; each leaves it ready, and little in it.

    Late dimensions are left alone: a sync of the pages' commands is to find what they show, however long they take.
    """
    with Pipeline(tmp_path_factory.mktemp("quiet") / "home", dimension_repair_ms=3_600_000) as running:
        yield running


@pytest.fixture(scope="session")
def closed_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosedDays]:
    """A local pipeline of now with three days behind it, from which nobody may remove; what is posted comes today.

    Files whose tests use it are to be named in ``tests/conftest.py``, beside ``closed_days``.
    """
    if reason := why_no_faketime():
        pytest.skip(reason)
    with run_closed_days(tmp_path_factory.mktemp("closed")) as made:
        yield made
