"""What every test run knows: hypothesis profiles, and what may run side by side."""

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Wall time says nothing on a machine that others use too.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# --hypothesis-profile=deep: for hours on one's own machine, not for every change.
settings.register_profile(
    "deep",
    max_examples=5_000,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

_GZIP = b"\x1f\x8b"
_INTEGRATION = "tests/integration/"
_APART = "tests/integration apart"
_WITH_PIPELINES_OF_THEIR_OWN = {
    f"{_INTEGRATION}test_{name}.py"
    for name in (
        "apart",
        "audit",
        "chaos_short",
        "closed_days",
        "drill",
        "exhaust",
        "exhaust_broken",
        "exhaust_page",
        "growth",
        "poison",
        "run_kill",
        "run_start",
        "upgrade",
        "secured",
    )
}


class _Scheduling(LoadScopeScheduling):
    """Each file is for one process. All integration tests that share pipelines are for the same one, and all that start
    their own for another, so that there are never more than two pipelines under load. (Groups by mark need what pytest
    9 no longer has: pytest-xdist 3.8 writes ``Item._nodeid``.)"""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in _WITH_PIPELINES_OF_THEIR_OWN:
            return _APART
        return _INTEGRATION if path.startswith(_INTEGRATION) else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Let ``-n 2`` share out files."""
    return _Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first."""
    items.sort(key=lambda item: not item.nodeid.startswith(_INTEGRATION))


def pytest_make_parametrize_id(val: object) -> str | None:
    """A gzip file holds the time it was made, and every process must know a test by the same name."""
    return "gzip" if isinstance(val, bytes) and val.startswith(_GZIP) else None
