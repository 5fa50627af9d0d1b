"""The model that a simulated fleet's devices are of, in the home's own registry."""

from __future__ import annotations

from midstream.registry.engine import open_engine
from midstream.registry.fleet.errors import FleetError
from midstream.registry.fleet.models import Models
from midstream.registry.migrate import migrate
from midstream.settings import Settings


def own_model(settings: Settings, seed: int, interval_s: float) -> str:
    """Create the model of a fleet; return its hardware key, a new one if the model is there already.

    Raises:
        RegistryError: the registry refuses.
    """
    migrate(settings)
    engine = open_engine(settings)
    try:
        models, name = Models(engine), f"simulated-{seed}"
        try:
            return models.create(name, max(round(interval_s), 1)).hardware_key
        except FleetError:  # it is there, and its key was lost with the file
            return models.renew_key(name).hardware_key
    finally:
        engine.dispose()
