"""Assignment telemetry: what learners did with an exercise, one record per academy, asset and user."""
