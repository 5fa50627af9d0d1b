"""Fault injection on real processes: `make chaos`. See docs/chaos.md."""
