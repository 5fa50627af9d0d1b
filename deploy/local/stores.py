"""What must stand before the pipeline's processes start: topics, tables, the registry, a token to try it with."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from deploy.local.errors import LocalError
from deploy.local.waiting import POLL_S, Flag, Waiter, http_get, listens
from midstream.settings import Settings

DEMO_CREDENTIAL = "demo"

_UP_TIMEOUT_S = 60.0


def prepare_stores(settings: Settings, stop: Flag, look: Callable[[], None]) -> None:
    """Wait for Kafka and ClickHouse, and bring topics, tables and registry up to date, the three at once.

    ``look`` is called all the while. When one fails or a stop is asked for, the others end too.

    Raises:
        LocalError: one of them cannot be had.
        StopRequestedError: ``stop`` was set.
    """
    # Set by a stop, and by the failure of another step.
    ended = Flag()
    waiter = Waiter(ended)
    with ThreadPoolExecutor(max_workers=3, thread_name_prefix="prepare") as pool:
        steps = [pool.submit(step, settings, waiter) for step in (_registry, _kafka, _clickhouse)]
        try:
            left = set(steps)
            while left:
                done, left = wait(left, timeout=POLL_S, return_when=FIRST_EXCEPTION)
                for step in done:
                    step.result()
                Waiter(stop).pause(0)
                look()
        finally:
            ended.set()


def demo_token(settings: Settings) -> str:
    """Return the token of the demo credential, which is created when it is not there or was revoked.

    Raises:
        LocalError: the registry refuses.
    """
    from midstream.registry.credentials import Credentials
    from midstream.registry.errors import RegistryError, UnknownCredential

    try:
        credentials = Credentials(settings)
        try:
            return credentials.token(DEMO_CREDENTIAL).token
        except UnknownCredential:
            return credentials.create(DEMO_CREDENTIAL).token
        finally:
            credentials.close()
    except RegistryError as error:
        raise LocalError(f"the registry gives no token to try with: {error}") from error


# The imports below are heavy, and at the top they would delay the messages of a start that cannot succeed.


def _registry(settings: Settings, _waiter: Waiter) -> None:
    from midstream.registry.errors import RegistryError
    from midstream.registry.migrate import migrate

    try:
        migrate(settings)
    except RegistryError as error:
        raise LocalError(f"the registry cannot be used: {error}") from error


def _kafka(settings: Settings, waiter: Waiter) -> None:
    from midstream.kafka.admin import TopicsError, ensure_topics

    if not settings.kafka and not waiter.until(lambda: listens(settings.local_kafka_port), _UP_TIMEOUT_S):
        raise LocalError(f"Kafka does not answer after {_UP_TIMEOUT_S:.0f} s")
    try:
        waiter.run_async(ensure_topics(settings))
    except TopicsError as error:
        raise LocalError(str(error)) from error


def _clickhouse(settings: Settings, waiter: Waiter) -> None:
    from midstream.clickhouse.client import ClickHouseError
    from midstream.clickhouse.migrate import migrate

    if not settings.clickhouse:
        port = settings.local_clickhouse_port
        if not waiter.until(lambda: http_get("127.0.0.1", port, "/ping")[0] == 200, _UP_TIMEOUT_S):
            raise LocalError(f"the ClickHouse engine does not answer after {_UP_TIMEOUT_S:.0f} s")
    try:
        migrate(settings)
    except ClickHouseError as error:
        raise LocalError(f"the tables of ClickHouse cannot be brought up to date: {error}") from error
