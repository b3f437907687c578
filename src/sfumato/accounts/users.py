"""Accounts: who exists and in which role. Knows nothing of keys' use or of jobs."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.accounts import credits as ledger
from sfumato.accounts import keys
from sfumato.accounts.keys import Caller, CreatedKey
from sfumato.core.errors import Conflict, InvalidRequest, NotFound, Unauthorized
from sfumato.storage.database import Database
from sfumato.storage.tables import UserRow

ADMINISTRATOR = "admin"
"""The name of the account that an empty installation makes for itself."""

_USERNAME = re.compile(r"[a-z][a-z0-9-]{2,24}")


class Role(StrEnum):
    """What an account may do: an ADMIN manages users, keys and credits of everyone."""

    ADMIN = "admin"
    USER = "user"


@dataclass(frozen=True, kw_only=True)
class User:
    """An account as others see it."""

    id: UUID
    username: str
    role: Role
    is_active: bool
    created_at: datetime


async def create_user(db: Database, username: str, role: Role = Role.USER, *, initial_credits: int) -> User:
    """Make an account with its first credits; the name is kept in lower case.

    Raises `InvalidRequest` for a name that is not a letter and 2 to 24 letters, digits or hyphens, and `Conflict` for
    one that is taken.
    """
    name = username.strip().lower()
    if not _USERNAME.fullmatch(name):
        raise InvalidRequest(
            "A username is 3 to 25 letters, digits or hyphens and starts with a letter.", field="username"
        )
    try:
        async with db.write() as session:
            return await _insert_user(session, name, role, initial_credits)
    except IntegrityError:
        raise Conflict(f"There is already a user named {name!r}.") from None


async def find_user(db: Database, who: str | UUID) -> User:
    """Return the account of this id or name, in any case. Raises `NotFound`."""
    key = UserRow.id == who if isinstance(who, UUID) else UserRow.username == who.strip().lower()
    async with db.read() as session:
        row = await session.scalar(select(UserRow).where(key))
    if row is None:
        raise NotFound(f"There is no user {str(who)!r}.")
    return _user(row)


async def list_users(db: Database) -> list[User]:
    """Return all accounts, oldest first."""
    async with db.read() as session:
        rows = await session.scalars(select(UserRow).order_by(UserRow.created_at, UserRow.id))
        return [_user(row) for row in rows]


async def ensure_administrator(db: Database, initial_credits: int) -> CreatedKey | None:
    """On a database without users make the first administrator and a key; else return None.

    One transaction, so that a process killed half-way leaves no administrator whose key nobody has seen.
    """
    async with db.write() as session:
        if await session.scalar(select(UserRow.id).limit(1)) is not None:
            return None
        user = await _insert_user(session, ADMINISTRATOR, Role.ADMIN, initial_credits)
        return await keys.insert_key(session, user.id, "First key")


async def first_administrator(db: Database) -> Caller:
    """Return the oldest active administrator as a caller without a key. Raises `Unauthorized` when there is none."""
    query = select(UserRow).where(UserRow.role == Role.ADMIN.value, UserRow.is_active).order_by(UserRow.created_at)
    async with db.read() as session:
        row = await session.scalar(query.limit(1))
    if row is None:
        raise Unauthorized("There is no administrator.")
    return Caller(user_id=row.id, username=row.username, role=row.role, api_key_id=None)


async def _insert_user(session: AsyncSession, username: str, role: Role, initial_credits: int) -> User:
    row = UserRow(username=username, role=role.value)
    session.add(row)
    await session.flush()
    if initial_credits:
        await ledger.insert_grant(session, row.id, initial_credits, ledger.FREE)
    return _user(row)


def _user(row: UserRow) -> User:
    return User(
        id=row.id,
        username=row.username,
        role=Role(row.role),
        is_active=row.is_active,
        created_at=row.created_at,
    )
