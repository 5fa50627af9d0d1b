"""What every test run knows: hypothesis profiles, and what may run side by side."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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
_INTEGRATION = Path(__file__).parent / "integration"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` each file is for one process, and all integration tests are for the same one: they
    share pipelines, and two under load at the same time would measure each other. They take longest and come first."""
    for item in items:
        group = "integration" if _INTEGRATION in item.path.parents else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: _INTEGRATION not in item.path.parents)


def pytest_make_parametrize_id(val: object) -> str | None:
    """A gzip file holds the time it was made, and every process must know a test by the same name."""
    return "gzip" if isinstance(val, bytes) and val.startswith(_GZIP) else None
