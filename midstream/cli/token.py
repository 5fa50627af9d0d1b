"""``midstream token``: bearer tokens by name."""

from __future__ import annotations

from typing import Literal

import click

from midstream.cli._common import open_credentials, print_json, print_table, say


@click.group()
def token() -> None:
    """Bearer tokens. Each is a credential whose key is its name."""


@token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["app", "operator"]), default="app", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print an object: name, role, token.")
def create(name: str, role: Literal["app", "operator"], as_json: bool) -> None:
    """Create a token and print it.

    app: telemetry, trace, device register and profile. operator: fleet, dimensions, sync, trace, administration too.
    The token has no expiry; `token revoke` ends it.
    """
    with open_credentials() as credentials:
        issued = credentials.create(name, role=role)
    if as_json:
        print_json({"name": name, "role": role, "token": issued.token})
    else:
        click.echo(issued.token)


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print an array of objects.")
def list_tokens(as_json: bool) -> None:
    """List names, roles and states; tokens are not shown again."""
    with open_credentials() as credentials:
        found = credentials.list_all()
    if as_json:
        print_json(
            [
                {"name": one.name, "role": one.role, "state": one.state, "created_at": one.created_at.isoformat()}
                for one in found
            ]
        )
    else:
        print_table(
            ["NAME", "ROLE", "STATE", "CREATED"],
            [[one.name, one.role, one.state, one.created_at.isoformat(timespec="seconds")] for one in found],
        )


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """End all tokens of NAME, within one second in every process."""
    with open_credentials() as credentials:
        ended = credentials.revoke_name(name)
    say(f"{ended} ended" if ended else f"{name} was revoked before")
