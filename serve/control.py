"""The fleet's control state as the routes work with it: the registry in threads, and the folder of device files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from midstream.registry.admin_log import read_acts
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryUnavailable
from midstream.registry.fleet.commands import Commands
from midstream.registry.fleet.configs import Configs
from midstream.registry.fleet.devices import Devices
from midstream.registry.fleet.files import Files
from midstream.registry.fleet.licenses import Licenses
from midstream.registry.fleet.models import Models
from midstream.registry.fleet.told import Told
from midstream.settings import Settings
from serve.calls import CallError, Calls
from serve.uploads import Folder

P = ParamSpec("P")
T = TypeVar("T")

_WAIT_MS = 2_000
_TIMEOUT_S = 5.0
_THREADS = 4


class Control:
    """Belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._engine = open_engine(settings, wait_ms=_WAIT_MS)
        self._calls = Calls("control", threads=_THREADS, timeout_s=_TIMEOUT_S)
        self.devices = Devices(self._engine)
        self.configs = Configs(self._engine)
        self.commands = Commands(self._engine)
        self.licenses = Licenses(self._engine)
        self.models = Models(self._engine)
        self.files = Files(self._engine)
        self.told = Told(self._engine)
        self.acts = partial(read_acts, self._engine)
        self.firmware = Folder(settings.device_files_folder / "files")
        self.dumps = Folder(settings.device_files_folder / "dumps")

    def close(self) -> None:
        """Close the connections; calls under way are not waited for."""
        self._calls.close()
        self._engine.dispose()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call of the registry; what it raises is raised.

        Raises:
            RegistryUnavailable: the registry is away, or did not answer in time.
        """
        try:
            return await self._calls.run(call, *args, **kwargs)
        except CallError as error:
            raise RegistryUnavailable(f"the registry cannot be used: {error}") from None
