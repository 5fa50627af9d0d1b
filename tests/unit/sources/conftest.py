from collections.abc import Iterator

import pytest

from tests.support.postgres import postgres, why_no_postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The start of databases' URLs of a server."""
    if reason := why_no_postgres():
        pytest.skip(reason)
    with postgres() as start:
        yield start
