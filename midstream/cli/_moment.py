"""The option that takes a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_SPAN = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Moment(click.ParamType):
    """A moment: ISO 8601 (UTC unless it names a zone), or a span from now such as 90d, 12h, 30m."""

    name = "moment"
    direction = 1
    """Of a span, seen from now."""

    def convert(self, value: str | datetime, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse it."""
        if isinstance(value, datetime):
            return value
        span = _SPAN.fullmatch(value)
        try:
            if span is not None:
                return datetime.now(UTC) + self.direction * timedelta(**{_UNITS[span[2]]: int(span[1])})
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither ISO 8601 nor a span such as 90d, 12h or 30m", param, ctx)


class PastMoment(Moment):
    """A moment whose span goes back from now."""

    direction = -1
