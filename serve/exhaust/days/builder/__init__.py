"""Builds a day's file in a process of its own, at low priority, so that what comes in is not held up."""
