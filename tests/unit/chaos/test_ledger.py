"""The ledger, of what bench.mix makes."""

from __future__ import annotations

from bench.mix import batches
from tests.chaos.ledger import Ledger


def test_it_knows_valid_invalid_and_resent_events() -> None:
    ledger = Ledger()
    made = list(batches(7, 20_000, 20, 1_700_000_000_000))
    for number, batch in enumerate(made):
        ledger.add(number, batch.body).attempts = 1
    assert ledger.sent_events == 20_000
    assert ledger.acknowledged_events == 0
    assert len(ledger.invalid_mids()) == sum(batch.invalid for batch in made) > 100
    assert len(ledger.valid_mids()) == sum(batch.fresh for batch in made)
    arrived = ledger.arrivals(dict.fromkeys(ledger.batches, 1))
    assert arrived.total() == 20_000
    assert sum(times - 1 for times in arrived.values()) == sum(batch.resent for batch in made) > 200


def test_what_was_acknowledged_twice_counts_twice() -> None:
    ledger = Ledger()
    [batch] = batches(7, 20, 20, 1_700_000_000_000)
    sent = ledger.add(0, batch.body)
    sent.attempts, sent.acknowledged = 3, 2
    assert (ledger.sent_events, ledger.acknowledged_events, ledger.acknowledged_batches) == (20, 40, 2)
    assert set(ledger.arrivals({sent.msgid: 3}).values()) == {3}
