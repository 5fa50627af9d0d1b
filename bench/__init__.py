"""Measurements of the running pipeline."""
