"""What an analyst would ask of the day. More in ``docs/queries``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """A question and its SQL, ready to be pasted elsewhere."""

    title: str
    sql: str


def queries_of(run: str) -> list[Query]:
    """Return the queries, each over the events of one run: they carry its tag."""
    tag = f"has(tags, 'demo-{run}')"
    return [Query(title, sql.replace("$TAG", tag)) for title, sql in _QUERIES]


_QUERIES = (
    (
        "Minutes of learning by day and school, by the devices' own time",
        """\
SELECT toDate(ets) AS day, channel, uniqExact(actor_id) AS students,
    round(sum(edata_duration) / 60) AS minutes
FROM events
WHERE $TAG
    AND eid = 'END' AND edata_type = 'player' AND NOT late
GROUP BY day, channel
ORDER BY day DESC, channel
LIMIT 8""",
    ),
    (
        "The hardest questions: percent of answers that were right",
        """\
SELECT JSONExtractString(edata, 'item', 'title') AS question,
    JSONExtractString(content, 'subject') AS subject,
    count() AS answers,
    round(100 * avg(JSONExtractFloat(edata, 'score'))) AS percent
FROM events
WHERE $TAG AND eid = 'ASSESS'
GROUP BY question, subject
ORDER BY percent, question
LIMIT 5""",
    ),
    (
        "Students and their right answers by district, from the users' profiles",
        """\
SELECT JSONExtractString(location, 'district') AS district,
    uniqExact(actor_id) AS students,
    count() AS answers,
    round(100 * avg(JSONExtractFloat(edata, 'score'))) AS percent
FROM events
WHERE $TAG
    AND eid = 'ASSESS' AND JSONExtractString(user, 'type') = 'student'
GROUP BY district
ORDER BY district""",
    ),
)
