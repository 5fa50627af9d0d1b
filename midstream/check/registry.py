"""The registry: reachable, of which revision, and its key."""

from __future__ import annotations

from midstream.check.result import Result, fail, ok, warn
from midstream.registry.credentials import Credentials
from midstream.registry.engine import registry_url
from midstream.registry.errors import RegistryError
from midstream.registry.keyfile import key_path
from midstream.registry.migrate import revisions
from midstream.settings import Settings

_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_MIGRATE = "midstream migrate"


def check_registry(settings: Settings, timeout_s: float) -> list[Result]:
    """Return what is to be said of the registry; each wait for it is at most ``timeout_s``."""
    wait_ms = int(timeout_s * 1000)
    try:
        present, newest = revisions(settings, wait_ms=wait_ms)
        if present != newest:
            return [_other_revision(present, newest)]
        credentials = Credentials(settings, wait_ms=wait_ms)
        try:
            found = credentials.list_all()
        finally:
            credentials.close()
    except RegistryError as error:
        return [fail("registry", f"{error} (`{_MIGRATE}` creates it)", _MIGRATE)]
    active = sum(one.state == "active" for one in found)
    results = [ok("registry", f"{active} active credential{'' if active == 1 else 's'}, revision {present}")]
    return results + _key(settings) + _kind(settings)


def _other_revision(present: str, newest: str) -> Result:
    message = f"it is of revision {present or '(none)'}, this program of {newest}"
    return fail("registry", message, f"{_MIGRATE} (or install the newer Midstream that has migrated it)")


def _key(settings: Settings) -> list[Result]:
    path = key_path(settings)
    if not path.exists():
        change = f"restore {path} from the backup; of a registry without credentials, `{_MIGRATE}` makes a new one"
        return [fail("registry.key", f"{path} is missing", change)]
    mode = path.stat().st_mode
    if settings.registry_key:
        # A secret that is mounted has the mode that the container's runtime gives it.
        if mode & _OTHERS_WRITE:
            return [fail("registry.key", f"{path} can be written by others", f"chmod go-w {path}")]
        return [ok("registry.key", f"{path} is read, and nobody else may write it")]
    if mode & _OTHERS:
        return [fail("registry.key", f"{path} can be read by others", f"chmod 600 {path}")]
    return [ok("registry.key", f"{path} is ours alone")]


def _kind(settings: Settings) -> list[Result]:
    url = registry_url(settings)
    if url.get_backend_name() == "sqlite":
        if not settings.kafka and not settings.clickhouse:
            return []
        message = "a SQLite file: only processes of this machine share it"
        change = "with more than one machine, set MIDSTREAM_REGISTRY to a PostgreSQL"
        return [warn("registry.kind", message, change)]
    if url.host in (None, "localhost", "127.0.0.1", "::1") or url.query.get("sslmode") in ("verify-full", "verify-ca"):
        return []
    message = f"{url.host} is reached without a check of its certificate"
    change = "add ?sslmode=verify-full&sslrootcert=/path/ca.pem to MIDSTREAM_REGISTRY"
    return [warn("registry.security", message, change)]
