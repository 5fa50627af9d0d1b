"""What devices call, but for their reports, which the collector takes (``ingest/devices.py``)."""
