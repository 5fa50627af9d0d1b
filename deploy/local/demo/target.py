"""The running pipeline that the demo talks to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from deploy.local.errors import LocalError
from deploy.local.home import Home
from deploy.local.pipeline import without_credentials
from deploy.local.stores import demo_token
from midstream.registry.credentials import Credentials
from midstream.registry.errors import RegistryError, UnknownCredential
from midstream.settings import Settings

OPERATOR = "demo-operator"
_TIMEOUT_S = 10.0


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """A pipeline that is ready. ``settings`` name its ClickHouse and registry."""

    base_url: str
    settings: Settings
    token: str = field(repr=False)


def find_target(settings: Settings) -> Target:
    """Find the pipeline that runs on the home of the settings.

    Raises:
        DemoError: none runs there, or it is not ready.
    """
    home = Home(settings.home)
    try:
        facts = json.loads(home.ready.read_text("utf-8"))
        base_url, clickhouse = facts["base_url"], facts["clickhouse"]
    except (OSError, ValueError, KeyError):
        raise DemoError(_advice(settings, "is ready")) from None
    try:
        reply = httpx.get(f"{base_url}/ready", timeout=_TIMEOUT_S, trust_env=False)
    except httpx.TransportError:
        raise DemoError(_advice(settings, f"answers on {base_url}")) from None
    if reply.status_code != 200:
        raise DemoError(f"the pipeline on {base_url} is not ready: {reply.text.strip()[:500]}")
    # ready.json has no credentials: those of an external ClickHouse are in the settings.
    if not settings.clickhouse or without_credentials(settings.clickhouse) != clickhouse:
        settings = settings.model_copy(update={"clickhouse": clickhouse})
    try:
        return Target(base_url, settings, demo_token(settings))
    except LocalError as error:
        raise DemoError(str(error)) from None


def _advice(settings: Settings, what: str) -> str:
    return (
        f"no pipeline on {settings.home} {what}.\n"
        'Start one with `make run` in another terminal, wait for "Midstream is ready", then run `make demo` again '
        "(with the same MIDSTREAM_HOME, if you set one)."
    )


@contextmanager
def operator_token(settings: Settings) -> Iterator[str]:
    """Give an operator's token, which ends with the block.

    Raises:
        DemoError: the registry refuses.
    """
    try:
        credentials = Credentials(settings)
        try:
            try:
                token = credentials.token(OPERATOR).token  # left by a demo that was killed
            except UnknownCredential:
                token = credentials.create(OPERATOR, role="operator").token
            try:
                yield token
            finally:
                credentials.revoke(OPERATOR)
        finally:
            credentials.close()
    except RegistryError as error:
        raise DemoError(f"the registry gives no operator's token: {error}") from None
