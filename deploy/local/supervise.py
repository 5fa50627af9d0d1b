"""supervisord in the foreground of a launcher: ``python -m deploy.local.supervise -c FILE``.

It is supervisord as published, but for one thing: when the launcher that started it is gone (kill -9), it stops its
processes in order and ends, as on SIGTERM, where supervisord by itself would live on unseen.
"""

from __future__ import annotations

import contextlib
import os
import sys

from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ServerOptions
from supervisor.states import SupervisorStates
from supervisor.supervisord import Supervisor

LAUNCHER_PID = "MIDSTREAM_RUN_LAUNCHER"
"""Environment variable: the process that must live."""


class BoundSupervisor(Supervisor):  # type: ignore[misc] # supervisor publishes no types
    """A supervisor that ends with its launcher."""

    launcher = int(os.environ.get(LAUNCHER_PID, "0"))

    def tick(self, now: float | None = None) -> None:
        """Look after the launcher; supervisord calls this at least once a second."""
        super().tick(now)
        if os.getppid() != self.launcher and self.options.mood > SupervisorStates.SHUTDOWN:
            self.options.logger.warn("the launcher is gone: stopping")
            self.options.mood = SupervisorStates.SHUTDOWN


def main() -> None:
    """Supervise until told to stop."""
    options = ServerOptions()
    options.realize(sys.argv[1:], doc=__doc__)
    options.first = True
    options.test = False
    with contextlib.suppress(asyncore.ExitNow):
        BoundSupervisor(options).main()
    options.close_httpservers()
    options.close_logger()


if __name__ == "__main__":
    main()
