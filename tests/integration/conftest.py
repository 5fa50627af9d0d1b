"""A pipeline of real processes for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.pipeline import Pipeline


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A running pipeline that all tests share: none may kill its processes or count all that is stored."""
    with Pipeline(tmp_path_factory.mktemp("shared") / "a home") as running:
        yield running
