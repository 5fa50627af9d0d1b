"""Exhaust: datasets of raw events that partners download day by day."""
