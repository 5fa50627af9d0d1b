"""Requests for downloads that take longer than a call should."""
