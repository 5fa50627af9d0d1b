"""A report as a record of ``device.telemetry``: JSON, under the device's id as its key."""

from __future__ import annotations

import msgspec

from midstream.devices.report import Report

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Report)


class RecordError(ValueError):
    """A record of ``device.telemetry`` that is none of ours."""


def encode_report(report: Report) -> bytes:
    """Return the value of its record."""
    return _encoder.encode(report)


def decode_report(value: bytes | None) -> Report:
    """Return the report of a record's value.

    Raises:
        RecordError: it holds none.
    """
    try:
        return _decoder.decode(value or b"")
    except (msgspec.MsgspecError, ValueError) as error:
        raise RecordError(str(error)) from None
