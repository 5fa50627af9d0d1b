"""The option that takes a day."""

from __future__ import annotations

import re
from datetime import date

import click

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Day(click.ParamType):
    """A day: YYYY-MM-DD."""

    name = "day"

    def convert(self, value: str | date, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Parse it."""
        if isinstance(value, date):
            return value
        try:
            if _DAY.fullmatch(value) is None:
                raise ValueError
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day such as 2026-01-31", param, ctx)
