"""What is wrong with a setting."""

from __future__ import annotations


class SettingsError(Exception):
    """A setting cannot be used; the message names the variable and what it takes."""
