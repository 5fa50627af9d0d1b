"""The sender's count of a state against the reference."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from midstream.devices.report import Report, read_report
from midstream.devices.state import state_of
from midstream.simulate.expected import ExpectedState

NOW_US = 1_790_000_000_000_000
BODIES = st.fixed_dictionaries(
    {
        "status": st.sampled_from(["online", "offline", "error"]),
        "telemetries": st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 3), max_size=3),
        "override": st.booleans(),
        "timestamp": st.none()
        | st.sampled_from(
            [
                "2026-09-21T14:13:20Z",
                "2026-09-21T14:13:21Z",
                "2026-09-21T14:13:20.000001Z",
                "2026-09-21T10:00:00Z",
                "2030-01-01T00:00:00Z",
                "9999-12-31T23:59:59Z",
            ]
        ),
    }
)


@settings(max_examples=300, deadline=None)
@given(st.lists(BODIES, max_size=8), st.data())
def test_it_is_the_reference(bodies: list[dict[str, Any]], data: st.DataObject) -> None:
    reports: list[Report] = []
    expected = ExpectedState()
    for number, body in enumerate(bodies):
        # Sent once or twice, one after the other.
        for again in range(data.draw(st.integers(1, 2))):
            report = read_report("d", body, NOW_US + 10 * number + again, f"{number}/{again}")
            reports.append(report)
            expected.add(report)
    state = state_of(reports)
    assert expected.values() == {key: entry.value for key, entry in state.items()}


def test_it_counts_different_reports() -> None:
    expected = ExpectedState()
    timed = {"status": "online", "timestamp": "2026-09-21T14:13:20Z"}
    for receipt, body in enumerate([timed, timed, {"status": "online"}, {"status": "online"}]):
        expected.add(read_report("d", body, NOW_US + receipt, str(receipt)))
    assert expected.reports == 3
