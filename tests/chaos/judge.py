"""The judge: compares what lies in ClickHouse, row by row, with the client's ledger. Uses no metric of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from midstream.clickhouse.client import ClickHouse
from processors.store.route import EVENT_TABLES
from tests.chaos.ledger import Ledger

_NAMED = 10
"""Of each fault so many are named."""


@dataclass(frozen=True)
class Found:
    """What lies in ClickHouse."""

    stored: Counter[str]
    """Rows of the tables of events, by mid."""
    visible: int
    """Rows of the view `events`."""
    duplicates: Counter[str]
    """Rows of `duplicates`, by mid."""
    rejects: Counter[str]
    """Rows of `rejects`, by mid."""
    received: dict[str, int]
    """Rows of `batches`, by msgid."""
    uneven: list[dict[str, Any]]
    """Batches whose arrivals are not exactly their events, each in one place."""
    in_flight: int
    unaccounted: int
    """Of the view `accounting`; each minute and channel counts by its amount, so that nothing is set off."""


@dataclass
class Judgement:
    """The counts, and what is wrong: ``faults`` is empty when all is exact."""

    sent: int
    acknowledged: int
    stored: int
    distinct: int
    duplicate: int
    rejected: int
    lost: int
    double: int
    invented: int
    unaccounted: int
    in_flight: int
    uneven_batches: int
    miscounted_mids: int
    faults: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults

    def as_json(self) -> dict[str, Any]:
        """Return it for the result's file."""
        return asdict(self)


_ARRIVALS = """
    SELECT batch_id, toInt64(event_index) AS place, 1 AS s, 0 AS d, 0 AS r FROM events
    UNION ALL SELECT batch_id, toInt64(event_index), 0, 1, 0 FROM duplicates
    UNION ALL SELECT batch_id, toInt64(event_index), 0, 0, 1 FROM rejects
"""

_UNEVEN = f"""
SELECT batch_id, msgid, events, known, arrivals, rows, stored, duplicate, rejected
FROM (SELECT batch_id, any(msgid) AS msgid, sum(events) AS events, count() AS known FROM batches GROUP BY batch_id) AS b
FULL OUTER JOIN
(
    SELECT batch_id, uniqExact(place) AS arrivals, count() AS rows, sum(s) AS stored, sum(d) AS duplicate, sum(r) AS rejected
    FROM ({_ARRIVALS}) GROUP BY batch_id
) AS a USING (batch_id)
WHERE known != 1 OR events != arrivals OR arrivals != rows
ORDER BY batch_id
"""  # noqa: E501 - read as a whole


def collect(clickhouse: ClickHouse) -> Found:
    """Read everything that counts.

    Raises:
        ClickHouseError: the engine cannot be asked.
    """
    stored: Counter[str] = Counter()
    for table in EVENT_TABLES:
        # Not by the view that readers use: what that might hide counts here.
        stored.update(_mids(clickhouse, table))
    [(in_flight, unaccounted)] = clickhouse.rows("SELECT sum(in_flight), sum(abs(unaccounted)) FROM accounting")
    return Found(
        stored=stored,
        visible=clickhouse.rows("SELECT count() FROM events")[0][0],
        duplicates=Counter(_mids(clickhouse, "duplicates")),
        rejects=Counter(_mids(clickhouse, "rejects")),
        received=dict(clickhouse.rows("SELECT msgid, count() FROM batches GROUP BY msgid")),
        uneven=clickhouse.named_rows(_UNEVEN),
        in_flight=int(in_flight or 0),
        unaccounted=int(unaccounted or 0),
    )


def _mids(clickhouse: ClickHouse, table: str) -> Iterable[str]:
    mids: list[str] = clickhouse.arrow(f"SELECT mid FROM {table}").column("mid").to_pylist()
    return mids


def judge(ledger: Ledger, found: Found) -> Judgement:
    """Compare. Pure.

    How often a batch was received lies between its 2xx and its sendings, for one whose reply was lost may have
    arrived; `batches` says how often, and with that every single mid must add up: rows stored and duplicates of a
    valid one, rejects of an invalid one.
    """
    faults: list[str] = []

    def fault(what: str, those: Iterable[object]) -> int:
        named = sorted(map(str, those))
        if named:
            faults.append(f"{len(named)} {what}: {', '.join(named[:_NAMED])}{' ...' if len(named) > _NAMED else ''}")
        return len(named)

    distinct, rows = len(found.stored), found.stored.total()
    lost = fault("acknowledged events are not stored", ledger.acknowledged_mids() - found.stored.keys())
    fault("mids are stored more than once", (mid for mid, times in found.stored.items() if times > 1))
    invented = fault("stored mids were never sent as valid events", found.stored.keys() - ledger.valid_mids())
    fault("refused mids were never sent as invalid events", found.rejects.keys() - ledger.invalid_mids())
    if found.visible != rows:
        faults.append(f"the view `events` shows {found.visible} rows of {rows}")
    fault(
        "batches were received less often than acknowledged or more often than sent",
        (
            f"{msgid} ({sent.acknowledged} <= {found.received.get(msgid, 0)} <= {sent.attempts})"
            for msgid, sent in ledger.batches.items()
            if not sent.acknowledged <= found.received.get(msgid, 0) <= sent.attempts
        ),
    )
    fault("batches were received that nobody sent", found.received.keys() - ledger.batches.keys())
    uneven = fault("batches do not add up", found.uneven)
    miscounted = fault("mids do not add up", _miscounted(ledger, found))
    if found.in_flight:
        faults.append(f"{found.in_flight} events are in flight")
    if found.unaccounted:
        faults.append(f"{found.unaccounted} events are unaccounted for")
    return Judgement(
        sent=ledger.sent_events,
        acknowledged=ledger.acknowledged_events,
        stored=rows,
        distinct=distinct,
        duplicate=found.duplicates.total(),
        rejected=found.rejects.total(),
        lost=lost,
        double=rows - distinct,
        invented=invented,
        unaccounted=found.unaccounted,
        in_flight=found.in_flight,
        uneven_batches=uneven,
        miscounted_mids=miscounted,
        faults=faults,
    )


def _miscounted(ledger: Ledger, found: Found) -> Iterable[str]:
    arrived = ledger.arrivals(found.received)
    invalid = ledger.invalid_mids()
    for mid in arrived.keys() | found.stored.keys() | found.duplicates.keys() | found.rejects.keys():
        here = found.rejects[mid] if mid in invalid else found.stored[mid] + found.duplicates[mid]
        elsewhere = found.stored[mid] + found.duplicates[mid] if mid in invalid else found.rejects[mid]
        if here != arrived[mid] or elsewhere:
            yield f"{mid} (arrived {arrived[mid]}, {found.stored[mid]} + {found.duplicates[mid]}, {found.rejects[mid]})"
