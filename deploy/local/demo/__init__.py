"""`make demo`: send a realistic day of a small fleet to a running pipeline, and show what became of it.

Read in this order: ``fleet`` (who and what there is), ``lessons`` (what somebody does in an app), ``broken`` (what
arrives broken), ``clocks`` (what phones believe the time to be), ``day`` (which batches go out), ``sender`` (over
HTTP, as the SDKs do it), ``outcome`` (what ClickHouse has of it), ``rooms`` (devices that report their state),
``school`` and ``exercises`` (learners whose runners send telemetry, and what the course's author sees), ``report``
(for people).

Fleet and day are pure functions of a seed and the moment of the run: the same seed is the same fleet and the same
doings, and so the same counts. Ids of events carry the run, so that a second run adds a day and does not only
repeat the first; ``run`` is the moment it began, in base 36. Exercises are done in an academy of the run.
"""
