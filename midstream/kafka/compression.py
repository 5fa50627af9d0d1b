"""Makes aiokafka compress record batches with zstd at level 1.

aiokafka 0.14 has no setting for the level and takes 3, Kafka's own default: for batches of telemetry twice the time,
and no fewer bytes.
"""

from __future__ import annotations

from importlib import import_module

import cramjam

ZSTD_LEVEL = 1

# Its builder of batches exists twice, compiled and in Python; each has a name of its own for the function.
_BUILDERS = ("aiokafka.record._crecords.default_records", "aiokafka.record.default_records")


def compress_quickly() -> None:
    """Choose the level for every producer of this process; done again, it changes nothing.

    Raises:
        AttributeError: this aiokafka compresses in another way.
    """
    for name in _BUILDERS:
        try:
            builder = import_module(name)
        except ImportError:  # not compiled for this platform
            continue
        if not hasattr(builder, "zstd_encode"):
            raise AttributeError(f"{name} has no zstd_encode")
        builder.zstd_encode = _encode  # type: ignore[attr-defined]


def _encode(payload: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(payload, level=ZSTD_LEVEL))
