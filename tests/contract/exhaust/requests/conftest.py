"""An api that works fast on requests, and some days to ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midstream.settings import Settings
from tests.contract.exhaust.conftest import Api, Store, day_before, serving
from tests.contract.exhaust.requests.asking import QUICK, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(settings: Settings, clock: Clock) -> Iterator[Api]:
    with serving(settings, QUICK, clock) as opened:
        yield opened


@pytest.fixture
def filled(store: Store) -> Store:
    """Three days of some hundred events."""
    for number in (1, 2, 3):
        store.fill(day_before(number), 300)
    store.close_days()
    return store
