"""``midstream credential``: keys and secrets that tokens are made with."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import click

from midstream.cli._common import open_credentials, print_json, print_table, say
from midstream.cli._moment import Moment


@click.group()
def credential() -> None:
    """Credentials: the key that a token's `iss` names, and its secret."""


@credential.command()
@click.argument("name")
@click.option("--key", help="The token's `iss`. Default: NAME.")
@click.option("--role", type=click.Choice(["app", "operator"]), default="app", show_default=True)
@click.option("--channel", "channels", multiple=True, help="Tie it to a channel; may be given again. Default: any.")
@click.option("--expires", type=Moment(), help="When it ends: ISO 8601 (UTC), or a span such as 90d, 12h, 30m.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: key, secret, token.")
def create(
    name: str,
    key: str | None,
    role: Literal["app", "operator"],
    channels: tuple[str, ...],
    expires: datetime | None,
    as_json: bool,
) -> None:
    """Create a credential and print its secret."""
    with open_credentials() as credentials:
        issued = credentials.create(name, key=key, role=role, channels=channels, expires_at=expires)
    if as_json:
        print_json({"key": issued.key, "secret": issued.secret, "token": issued.token})
    else:
        click.echo(issued.secret)


@credential.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_credentials(as_json: bool) -> None:
    """List all credentials; secrets are not shown again."""
    with open_credentials() as credentials:
        found = credentials.list_all()
    if as_json:
        print_json(
            [
                {
                    "key": one.key,
                    "name": one.name,
                    "role": one.role,
                    "state": one.state,
                    "channels": list(one.channels),
                    "created_at": one.created_at.isoformat(),
                    "rotated_at": one.rotated_at and one.rotated_at.isoformat(),
                    "expires_at": one.expires_at and one.expires_at.isoformat(),
                    "revoked_at": one.revoked_at and one.revoked_at.isoformat(),
                }
                for one in found
            ]
        )
    else:
        print_table(
            ["KEY", "NAME", "ROLE", "STATE", "CHANNELS", "CREATED", "EXPIRES"],
            [
                [
                    one.key,
                    one.name,
                    one.role,
                    one.state,
                    ",".join(one.channels) or "any",
                    one.created_at.isoformat(timespec="seconds"),
                    one.expires_at.isoformat(timespec="seconds") if one.expires_at else "never",
                ]
                for one in found
            ],
        )


@credential.command()
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="Print an object: key, secret, token.")
def rotate(key: str, as_json: bool) -> None:
    """Give a credential a new secret and print it. Tokens of the old one end within one second."""
    with open_credentials() as credentials:
        issued = credentials.rotate(key)
    if as_json:
        print_json({"key": issued.key, "secret": issued.secret, "token": issued.token})
    else:
        click.echo(issued.secret)


@credential.command()
@click.argument("key")
def revoke(key: str) -> None:
    """End a credential, and with it its tokens, within one second in every process."""
    with open_credentials() as credentials:
        credentials.revoke(key)
    say(f"{key} is revoked")
