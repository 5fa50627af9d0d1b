import pytest

from midstream.devices.record import RecordError, decode_report, encode_report
from midstream.devices.report import read_report


@pytest.mark.parametrize(
    "sent",
    [
        {"status": "online"},
        {
            "status": "error",
            "timestamp": "2026-01-31T12:00:00.123456Z",
            "telemetries": {"": None, "a.b/ü😀": "x", "i": 2**62, "f": 1.0, "g": 0.1, "t": True},
            "message": "\u0000 hot",
            "override": True,
        },
    ],
)
def test_a_report_comes_back_as_it_was(sent: dict[str, object]) -> None:
    report = read_report("d1", sent, 1_790_000_000_000_000, "r1")
    back = decode_report(encode_report(report))
    assert back == report
    assert [type(value) for value in back.values.values()] == [type(value) for value in report.values.values()]


@pytest.mark.parametrize("value", [None, b"", b"null", b"{}", b"[1]", b"\xff", b'{"device_id":1}'])
def test_what_is_no_report_is_an_error(value: bytes | None) -> None:
    with pytest.raises(RecordError):
        decode_report(value)
