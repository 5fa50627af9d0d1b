"""Pipelines as others would write them, measured on the same events. They run in an environment of their own
(``requirements-peers.lock``) and import nothing of ours but :mod:`bench.peers.common`."""
