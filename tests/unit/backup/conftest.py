from tests.support.registry import engine, settings
from tests.unit.registry.conftest import postgres_url

__all__ = ["engine", "postgres_url", "settings"]
