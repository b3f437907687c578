"""`sfumato users`: accounts and their credits."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sfumato.accounts import credits as ledger
from sfumato.accounts import users
from sfumato.accounts.users import Role, User
from sfumato.cli.database import with_database
from sfumato.cli.options import ConfigOption, DataOption, JsonOption, load_settings
from sfumato.cli.output import print_json, print_table
from sfumato.storage.database import Database

app = typer.Typer(help="Users and their credits.", no_args_is_help=True)


@app.command("create")
def create_user(
    username: Annotated[str, typer.Argument(metavar="NAME", help="3 to 25 letters, digits or hyphens.")],
    *,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.USER,
    initial_credits: Annotated[
        int | None,
        typer.Option(
            "--credits", min=0, help="Credits to begin with; the settings say how many by default.", show_default=False
        ),
    ] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a user. Give it a key with `sfumato keys create --user NAME`."""
    settings = load_settings(data, config)
    if initial_credits is None:
        is_admin = role is Role.ADMIN
        initial_credits = settings.initial_admin_credits if is_admin else settings.initial_user_credits
    first_credits = initial_credits
    user = with_database(settings, lambda db: users.create_user(db, username, role, initial_credits=first_credits))
    if as_json:
        print_json(_as_json(user, first_credits))
        return
    typer.echo(f"User {user.username} ({user.role}) has {first_credits} credits.")


@app.command("list")
def list_users(*, data: DataOption = None, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List users, oldest first, with the credits they can spend now."""

    async def work(db: Database) -> list[tuple[User, int]]:
        found = await users.list_users(db)
        async with db.read() as session:
            return [(user, await ledger.balance(session, user.id)) for user in found]

    found = with_database(load_settings(data, config), work)
    if as_json:
        print_json([_as_json(user, balance) for user, balance in found])
        return
    print_table(
        ("id", "name", "role", "active", "credits", "created"),
        (
            (
                user.id,
                user.username,
                user.role,
                "yes" if user.is_active else "no",
                balance,
                f"{user.created_at:%Y-%m-%d}",
            )
            for user, balance in found
        ),
    )


@app.command("grant-credits")
def grant_credits(
    username: Annotated[str, typer.Argument(metavar="NAME", help="Who gets the credits.")],
    amount: Annotated[int, typer.Argument(metavar="AMOUNT", min=1, help="How many.")],
    *,
    kind: Annotated[
        str, typer.Option("--type", metavar="NAME", help=f"One of: {', '.join(ledger.CREDIT_TYPES)}.")
    ] = ledger.GIFT.name,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a user credits that do not expire."""

    async def work(db: Database) -> tuple[User, int]:
        user = await users.find_user(db, username)
        await ledger.grant(db, user.id, amount, kind)
        async with db.read() as session:
            return user, await ledger.balance(session, user.id)

    user, balance = with_database(load_settings(data, config), work)
    if as_json:
        print_json({"user_id": user.id, "username": user.username, "granted": amount, "type": kind, "credits": balance})
        return
    typer.echo(f"User {user.username} has {balance} credits.")


def _as_json(user: User, balance: int) -> dict[str, Any]:
    return asdict(user) | {"credits": balance}
