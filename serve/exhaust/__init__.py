"""Exhaust: raw events by day, for partners."""
