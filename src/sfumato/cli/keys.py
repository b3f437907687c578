"""`sfumato keys`: API keys of any user."""

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import typer

from sfumato.accounts import keys, users
from sfumato.accounts.keys import CreatedKey, KeyInfo
from sfumato.cli.database import with_database
from sfumato.cli.options import ConfigOption, DataOption, JsonOption, load_settings
from sfumato.cli.output import note, print_json, print_table
from sfumato.storage.database import Database

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.command("create")
def create_key(
    *,
    user: Annotated[str, typer.Option(metavar="NAME", help="Whose key.")] = users.ADMINISTRATOR,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What to call the key.")] = "Secret key",
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown this once and cannot be read again."""

    async def work(db: Database) -> CreatedKey:
        return await keys.create_key(db, (await users.find_user(db, user)).id, name)

    created = with_database(load_settings(data, config), work)
    if as_json:
        print_json(asdict(created))
        return
    note(f"Key {created.name!r} of {user}, id {created.id}. It is not shown again:")
    typer.echo(created.key)


@app.command("list")
def list_keys(
    *,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Only this user's keys.", show_default=False)] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys, revoked ones included, newest first. The keys themselves are not kept and cannot be shown."""

    async def work(db: Database) -> list[KeyInfo]:
        return await keys.list_keys(db, (await users.find_user(db, user)).id if user else None)

    found = with_database(load_settings(data, config), work)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ("id", "user", "name", "key", "active", "uses", "credits", "last used"),
        (
            (
                each.id,
                each.username,
                each.name,
                each.short_string,
                "yes" if each.is_active else "no",
                each.uses,
                each.credits_spent,
                f"{each.last_used_at:%Y-%m-%d %H:%M}" if each.last_used_at else "never",
            )
            for each in found
        ),
    )


@app.command("revoke")
def revoke_key(
    key_id: Annotated[UUID, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")],
    *,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key unusable from now on."""
    with_database(load_settings(data, config), lambda db: keys.revoke_key(db, key_id))
    if as_json:
        print_json({"id": key_id, "is_active": False})
        return
    typer.echo(f"Key {key_id} is revoked.")
