"""``midstream user``: the users of academies, and their tokens."""

from __future__ import annotations

from datetime import datetime
from typing import BinaryIO

import click

from midstream.cli._academies import AFTER, FILE, ID, LIMIT, LIST_AS_JSON, LOADED_AS_JSON, import_file, print_page
from midstream.cli._common import open_registry, print_json, print_table, say
from midstream.cli._moment import Moment


@click.group()
def user() -> None:
    """Users of academies. Each shows a token of its own."""


@user.command()
@click.argument("name")
@click.option("--id", "id_", type=ID, help="The platform's own number of it. Default: one above the highest.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: id, name.")
def create(name: str, id_: int | None, as_json: bool) -> None:
    """Create a user and print its id."""
    from midstream.registry.academies.users import Users

    with open_registry() as engine:
        number = Users(engine).create(name, id_)
    if as_json:
        print_json({"id": number, "name": name})
    else:
        click.echo(number)


@user.command("list")
@LIMIT
@AFTER
@LIST_AS_JSON
def list_users(limit: int, after: int, as_json: bool) -> None:
    """List users by id."""
    from midstream.registry.academies.users import Users

    with open_registry() as engine:
        found = Users(engine).page(after=after, limit=limit + 1)
    print_page(("id", "name", "created_at"), found, limit, as_json)


@user.command()
@click.argument("id_", metavar="ID", type=ID)
@click.option("--expires", type=Moment(), help="When it ends: ISO 8601 (UTC), or a span such as 90d, 12h, 30m.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: user, token, expires_at.")
def token(id_: int, expires: datetime | None, as_json: bool) -> None:
    """Create a token of a user and print it; it is shown this once. Others of the user stay good."""
    from midstream.registry.academies.users import Users

    with open_registry() as engine:
        made = Users(engine).create_token(id_, expires)
    if as_json:
        print_json({"user": id_, "token": made, "expires_at": expires and expires.isoformat()})
    else:
        click.echo(made)


@user.command()
@click.argument("id_", metavar="ID", type=ID)
@LIST_AS_JSON
def tokens(id_: int, as_json: bool) -> None:
    """List a user's tokens, oldest first; they are not shown again."""
    from midstream.registry.academies.users import Users

    with open_registry() as engine:
        found = Users(engine).tokens(id_)
    if as_json:
        print_json(
            [
                {
                    "state": one.state,
                    "created_at": one.created_at.isoformat(),
                    "expires_at": one.expires_at and one.expires_at.isoformat(),
                    "revoked_at": one.revoked_at and one.revoked_at.isoformat(),
                }
                for one in found
            ]
        )
    else:
        print_table(
            ["STATE", "CREATED", "EXPIRES"],
            [
                [
                    one.state,
                    one.created_at.isoformat(timespec="seconds"),
                    one.expires_at.isoformat(timespec="seconds") if one.expires_at else "never",
                ]
                for one in found
            ],
        )


@user.command()
@click.argument("id_", metavar="ID", type=ID)
def revoke(id_: int) -> None:
    """End all tokens of a user, within one second in every process."""
    from midstream.registry.academies.users import Users

    with open_registry() as engine:
        ended = Users(engine).revoke_tokens(id_)
    say(f"{ended} ended")


@user.command("import")
@FILE
@LOADED_AS_JSON
def import_(file: BinaryIO, as_json: bool) -> None:
    """Bring the users of FILE (- for standard input) in.

    FILE is JSON lines, {"id", "name"}, or CSV with a header row of these columns; either may be gzipped. The name of a
    user that is there becomes the file's. A row that cannot be taken is named and passed over, and the exit code is
    then 1. The same file may be imported again.
    """
    from midstream.registry.academies.bulk import USERS

    import_file(USERS, file, as_json)
