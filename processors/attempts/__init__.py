"""Which records a worker died of, or failed at: remembered over its deaths, so that none restarts it for ever.

A worker writes down what it is working on before it begins: a plain store into a mapped file, which outlives the
process but not the machine, for ten microseconds a record. Whatever ends the process in the midst of a step (a
segmentation fault, the kernel short of memory, a stack that overflows, the watchdog when a step does not end) leaves
that mark behind, and the next life finds it; an exception is written down on the way out. Each counts as a try of that
record, durably. A record is known by topic, partition, offset and a hash of its value: offsets repeat when a topic is
made anew.

What says nothing about a record is not counted: while a worker waits for ClickHouse or Kafka the mark is off, and an
error of theirs, a lost lease or a clean stop leaves none. A `kill -9` that comes from outside can hit a step by chance.
To be counted against a record it has to find the same one under work in each of ``record_tries`` lives in a row, since
a record that goes through is forgotten; steps take milliseconds and lives seconds, so a chance of one in a hundred each
time is one in ten thousand million for five. What is then parked is whole in ``rejects`` and can be sent again.

Where rows of several records were under work together (they are sealed, or written, together), nobody knows which of
them it was. Those records come in smaller groups in the next lives, then alone, and only then is a try counted. A
record that has tries against it comes with care: a few events at a time, then one by one, so that the one at fault is
known. When the tries are used up it is parked, and its neighbours go on. The counts belong to this worker's file: a
record that moves to another worker begins there anew.
"""

from processors.attempts.lane import Lane, Trial, is_of_the_environment
from processors.attempts.table import DIED, Attempts, AttemptsError
from processors.attempts.watchdog import end_if_stuck

__all__ = ["DIED", "Attempts", "AttemptsError", "Lane", "Trial", "end_if_stuck", "is_of_the_environment"]
