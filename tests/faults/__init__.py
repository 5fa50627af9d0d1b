"""Faults that alerts must name: ``python -m tests.faults`` (``make faults``)."""
