"""A pipeline of real processes for the whole session, and those who use it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration import containers
from tests.integration.outside import Outside
from tests.support.pipeline import Pipeline


@pytest.fixture(scope="session", params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def pipeline(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A running pipeline that all tests share: none may kill its processes or count all that is stored.

    Every test that uses it runs twice: against the local Kafka and ClickHouse engine, and against real servers in
    containers where a Docker engine answers.
    """
    home = tmp_path_factory.mktemp("shared") / "a home"
    if request.param == "local":
        with Pipeline(home) as running:
            yield running
        return
    if reason := containers.why_no_docker():
        pytest.skip(reason)
    with containers.stores() as settings, Pipeline(home, **settings) as running:
        yield running


@pytest.fixture(scope="session")
def outside(pipeline: Pipeline) -> Iterator[Outside]:
    """Clients of the shared pipeline."""
    clients = Outside(pipeline)
    yield clients
    clients.close()
