"""What the client knows of what it sent. Knows nothing of the pipeline's own counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import orjson


@dataclass(slots=True)
class Sent:
    """A batch that the client has made. ``mids`` are its events' in order; a mid may be there twice."""

    number: int
    msgid: str
    mids: tuple[str, ...]
    invalid: frozenset[str]
    attempts: int = 0
    """How often it was handed to the network: each may have arrived."""
    acknowledged: int = 0
    """How often it got its 2xx: each has arrived."""


@dataclass
class Ledger:
    """All batches of a client, by msgid."""

    batches: dict[str, Sent] = field(default_factory=dict)

    def add(self, number: int, body: bytes) -> Sent:
        """Enter a batch that is about to be sent.

        An event is invalid when it lacks its channel: that is what :mod:`bench.mix` leaves out.
        """
        batch = orjson.loads(body)
        events = batch["events"]
        sent = Sent(
            number,
            batch["params"]["msgid"],
            tuple(event["mid"] for event in events),
            frozenset(event["mid"] for event in events if "channel" not in event["context"]),
        )
        assert sent.msgid not in self.batches, f"msgid {sent.msgid} was made twice"
        self.batches[sent.msgid] = sent
        return sent

    @property
    def sent_events(self) -> int:
        """Events of all batches that were handed to the network, each batch once."""
        return sum(len(sent.mids) for sent in self.batches.values() if sent.attempts)

    @property
    def acknowledged_events(self) -> int:
        """Events of all 2xx; a batch that got two counts twice."""
        return sum(len(sent.mids) * sent.acknowledged for sent in self.batches.values())

    @property
    def acknowledged_batches(self) -> int:
        """Number of 2xx."""
        return sum(sent.acknowledged for sent in self.batches.values())

    def acknowledged_mids(self) -> set[str]:
        """Return the valid mids that got a 2xx: each must be stored."""
        return {mid for sent in self.batches.values() if sent.acknowledged for mid in sent.mids} - self.invalid_mids()

    def valid_mids(self) -> set[str]:
        """Return the valid mids that may have arrived: no other may be stored."""
        return {mid for sent in self.batches.values() if sent.attempts for mid in sent.mids} - self.invalid_mids()

    def invalid_mids(self) -> set[str]:
        """Return the mids whose event is not valid."""
        return {mid for sent in self.batches.values() for mid in sent.invalid}

    def arrivals(self, received: dict[str, int]) -> Counter[str]:
        """Return how often each mid arrived, given how often each batch was received, by msgid."""
        counts: Counter[str] = Counter()
        for msgid, times in received.items():
            sent = self.batches.get(msgid)
            if sent is not None:
                for mid in sent.mids:
                    counts[mid] += times
        return counts
