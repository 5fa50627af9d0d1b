"""Corrects stored events when the objects that they speak of have changed.

A correction is one row of ``correction_rows``: objects of one type with their new copies. The view ``events`` lays
the newest row over what is stored, and reads it once a query, before the parts of the tables. So a correction counts
for all events of an object at one moment. Then both event tables are updated in the engine, and the row is taken away;
whether a query sees the row or the updated tables, it sees the same. A query that read the row just before it came must
have begun to read the tables before they are updated: there is a pause between
(:data:`midstream.correct.overlay.GRACE_S`).

Lightweight updates (patch parts) were chosen after measuring: see docs/performance.md.
"""
