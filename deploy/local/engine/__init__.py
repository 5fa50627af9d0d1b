"""ClickHouse on one machine: the engine in process (chdb) behind the part of ClickHouse's HTTP interface that we use.

``python -m deploy.local.engine`` serves 127.0.0.1:8123 with its data in ``<home>/clickhouse``. A query's way:

- :mod:`app`: routes, and one query from request to answer.
- :mod:`request`: what the request asks for: SQL, database, settings, parameters, format, codecs; who may ask.
- :mod:`upload`: the body, whole, in memory or in a file, before anything runs: an aborted upload inserts nothing.
- :mod:`codecs`: Content-Encoding and Accept-Encoding.
- :mod:`statement`: what kind of statement it is, and where its FORMAT and its data begin.
- :mod:`database`: the engine: a bounded pool of threads, a connection for each query, cancelling, the folder's lock.
- :mod:`pipe`: a SELECT's rows on their way from the engine's thread to the client, with back-pressure.
- :mod:`answer`: headers, whole and streamed answers, errors before and after the first byte.
- :mod:`errors`: ClickHouse's error codes and the HTTP status of each.
- :mod:`config`: the engine's own configuration: limits for a laptop, cheap small inserts, what queries may reach.

What is durable: an INSERT that was answered 200 survives kill -9 of this process (as in a ClickHouse server by
default, not a power loss). What may be lost: an answer; the same insert with the same ``insert_deduplication_token``
is then stored once.
"""
