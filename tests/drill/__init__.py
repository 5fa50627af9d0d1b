"""A drill of disaster and recovery: ``make drill``.

A whole pipeline under load is backed up, then loses its home, is restored into an empty one, and reads from Kafka what
came since. Everything is compared with what clients were told. Then once more, with Kafka lost too.
"""
