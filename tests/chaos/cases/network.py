"""(e) The network cut: between store and engine, between workers and Kafka, between collector and Kafka."""

from __future__ import annotations

from bench.proxy import Fault, Proxy
from tests.chaos.case import Run, case
from tests.chaos.world import ENGINE, SESSION_TIMEOUT_S, Shape

_PULSE_S = 0.4
"""Time in which each open connection loses an answer, and new ones can hardly begin to ask."""


def _break_network(run: Run, proxy: Proxy, *, most_s: float) -> None:
    """Break it in every way in turn, in random order."""
    kinds: list[Fault] = []

    def break_it() -> None:
        if not kinds:
            kinds.extend(
                (
                    Fault.CUT,
                    Fault.STILL,
                    Fault.STILL_REQUESTS,
                    Fault.STILL_ANSWERS,
                    Fault.ANSWER_LOST,
                    Fault.ANSWER_LOST,
                )
            )
            run.rng.shuffle(kinds)
        run.sleep(1, 3)
        kind = kinds.pop()
        proxy.set(kind)
        if kind is Fault.ANSWER_LOST:
            run.sleep(_PULSE_S)
        else:
            run.sleep(0.5, most_s)
        proxy.set(Fault.NONE)
        run.count(kind.value)

    run.repeat(break_it)
    run.notes["answers lost"] = proxy.lost_answers
    assert proxy.lost_answers, "no answer was lost"


@case(Shape(store=2, proxied=frozenset({ENGINE}), settings={"clickhouse_timeout_ms": 3_000}))
def cut_store_engine(run: Run) -> None:
    """The network between store and engine: cut, still in one direction or both, answers lost."""
    _break_network(run, run.world.proxies[ENGINE], most_s=5)


@case(Shape(validate=2, store=2, proxied=frozenset({"workers"})))
def cut_worker_broker(run: Run) -> None:
    """The network between workers and Kafka: cut, still in one direction or both, answers lost."""
    _break_network(run, run.world.proxies["workers"], most_s=SESSION_TIMEOUT_S + 4)


@case(Shape(proxied=frozenset({"collector"}), settings={"kafka_timeout_ms": 3_000}))
def cut_collector_broker(run: Run) -> None:
    """The network between collector and Kafka: cut, still in one direction or both, answers lost."""
    _break_network(run, run.world.proxies["collector"], most_s=6)
