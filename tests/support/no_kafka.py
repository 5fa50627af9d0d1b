"""A Kafka that is away, for what does not wait for it."""

from __future__ import annotations

from midstream.kafka.producer import Life, Producer, ProducerUnavailable


class NoKafka(Producer):
    """Kafka is away."""

    def __init__(self) -> None:
        pass

    async def start(self) -> None:
        """Find nobody."""

    async def stop(self, timeout_s: float) -> None:
        """Leave nobody."""

    @property
    def ready(self) -> bool:
        return False

    def life(self) -> Life:
        raise ProducerUnavailable("Kafka does not take records now")
