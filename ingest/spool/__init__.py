"""The collector's spool: batches on the machine's own disk for as long as Kafka is away.

Delivery contract: when :meth:`ingest.spool.spool.Spool.append` returns, the batch survives the death of the process
and of the machine. It leaves the spool when Kafka has acknowledged it; until then it may be given to Kafka more than
once, always with the same receipt.
"""
