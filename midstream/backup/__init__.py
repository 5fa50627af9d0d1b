"""Backup and restore of what Midstream knows: ClickHouse, the registry, its key, and where Kafka's readers were.

What makes a restore exact is the order in which a backup is made:

1. :mod:`fence`: nobody corrects or erases stored events while it is made, and no correction lies beside the tables.
2. :mod:`claims`: how far the accounting said that everything was stored. True then, so true of what is copied later.
3. :mod:`positions`: how far each consumer group had committed. All that was committed is in what is copied later.
4. :mod:`tables`: ClickHouse copies its tables, each at another moment. What differs lies behind the positions, so that
   reading Kafka from there heals it: every row is recognised by what it is, never by a token that a restore forgets.
5. :mod:`registry`: last, as ids that it gives out must be ahead of the rows that carry them.

:mod:`make` and :mod:`restore` do the steps; :mod:`manifest` is what ties them together.
"""
