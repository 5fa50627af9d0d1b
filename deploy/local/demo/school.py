"""An academy of this run alone in the registry: its learners, and the platform that writes their records.

The learners are the same in every run, so that a seed is the same doings. All ids are far above those that a learning
platform has: none of its academies and users is ever mixed up with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.local.demo.exercises import LEARNERS, School
from deploy.local.demo.target import DemoError
from midstream.registry.academies.academies import Academies
from midstream.registry.academies.errors import TakenError
from midstream.registry.academies.grants import Grants
from midstream.registry.academies.users import Users
from midstream.registry.engine import open_engine
from midstream.registry.errors import RegistryError
from midstream.settings import Settings

_NAMES = {0: "Demo, platform", **{number: f"Demo, learner {number}" for number in range(1, LEARNERS + 1)}}
_FIRST_ID = 9_000_000_000_000
_MAX_ACADEMIES = 100_000


@contextmanager
def school_of(settings: Settings, run: str) -> Iterator[School]:
    """Found the academy of a run; the token of its platform ends with the block, the records stay.

    Raises:
        DemoError: the registry refuses.
    """
    try:
        engine = open_engine(settings)
        try:
            academies, users = Academies(engine), Users(engine)
            before = academies.page(after=_FIRST_ID - 1, limit=_MAX_ACADEMIES)
            academy = academies.create(f"Demo {run}", before[-1].id + 1 if before else _FIRST_ID)
            for number, name in _NAMES.items():
                with suppress(TakenError):  # of a run before
                    users.create(name, _FIRST_ID + number)
            platform, *learners = (_FIRST_ID + number for number in _NAMES)
            Grants(engine).grant(platform, academy, "crud_telemetry")
            try:
                yield School(academy, learners, users.create_token(platform))
            finally:
                users.revoke_tokens(platform)
        finally:
            engine.dispose()
    except RegistryError as error:
        raise DemoError(f"the registry gives no academy: {error}") from None
