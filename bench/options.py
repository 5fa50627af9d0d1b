"""What one run of the bench is to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """The same for all parts."""

    runs: int
    events: int
    """Of each measured load that is sent as fast as it is taken."""
    full: bool
    """Whether what takes far longer than the rest is wanted too."""
    folder: Path
    """Where data is kept meanwhile; held by :func:`bench.pipeline.bench_folder`."""
    peers_python: Path
    """The interpreter of the peers' environment."""
    say: Callable[[str], None]

    @property
    def warm_up_events(self) -> int:
        """Sent before anything is measured."""
        return max(self.events // 4, 2_000)
