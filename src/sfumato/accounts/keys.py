"""API keys: `sc-` and 64 hex digits, shown once and kept only as a hash."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.core.errors import NotFound, Unauthorized
from sfumato.storage.database import Database
from sfumato.storage.tables import ApiKeyRow, UserRow, utc_now

_KEY = re.compile(r"sc-[0-9a-f]{64}")
_MAX_NAME_CHARACTERS = 50


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a request comes from, and by which key (None when no key was needed)."""

    user_id: UUID
    username: str
    role: str
    api_key_id: UUID | None


@dataclass(frozen=True, kw_only=True)
class CreatedKey:
    """A key just made. `key` is the secret itself: show it once, store it nowhere."""

    id: UUID
    user_id: UUID
    key: str
    name: str
    short_string: str

    def __repr__(self) -> str:
        return f"CreatedKey({self.short_string})"  # a log must not hold the secret


@dataclass(frozen=True, kw_only=True)
class KeyInfo:
    """What may be shown of a key after it was made."""

    id: UUID
    user_id: UUID
    username: str
    name: str
    short_string: str
    is_active: bool
    uses: int
    credits_spent: int
    last_used_at: datetime | None
    created_at: datetime


async def create_key(db: Database, user_id: UUID, name: str = "Secret key") -> CreatedKey:
    """Make a key for a user. Raises `NotFound` when there is no such user."""
    async with db.write() as session:
        if await session.get(UserRow, user_id) is None:
            raise NotFound("There is no such user.")
        return await insert_key(session, user_id, name)


async def insert_key(session: AsyncSession, user_id: UUID, name: str) -> CreatedKey:
    """Make a key for a user within a transaction."""
    key = f"sc-{secrets.token_hex(32)}"
    row = ApiKeyRow(
        user_id=user_id,
        name=name.strip()[:_MAX_NAME_CHARACTERS] or "Secret key",
        hashed_key=_hash(key),
        short_string=f"sc-...{key[-4:]}",
    )
    session.add(row)
    await session.flush()
    return CreatedKey(id=row.id, user_id=user_id, key=key, name=row.name, short_string=row.short_string)


async def authenticate(db: Database, key: str) -> Caller:
    """Return the owner of a key.

    Raises `Unauthorized`, with the same words whether the key is malformed, unknown or revoked.
    """
    if not _KEY.fullmatch(key):
        raise Unauthorized("The API key is not valid.")
    query = (
        select(UserRow.id, UserRow.username, UserRow.role, ApiKeyRow.id)
        .join(ApiKeyRow, ApiKeyRow.user_id == UserRow.id)
        .where(ApiKeyRow.hashed_key == _hash(key), ApiKeyRow.is_active, UserRow.is_active)
    )
    async with db.read() as session:
        found = (await session.execute(query)).one_or_none()
    if found is None:
        raise Unauthorized("The API key is not valid.")
    user_id, username, role, key_id = found
    return Caller(user_id=user_id, username=username, role=role, api_key_id=key_id)


async def list_keys(db: Database, user_id: UUID | None = None) -> list[KeyInfo]:
    """Return the keys of a user, or of all, revoked ones included, newest first."""
    query = (
        select(ApiKeyRow, UserRow.username)
        .join(UserRow, UserRow.id == ApiKeyRow.user_id)
        .order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id)
    )
    if user_id is not None:
        query = query.where(ApiKeyRow.user_id == user_id)
    async with db.read() as session:
        return [_info(row, username) for row, username in await session.execute(query)]


async def revoke_key(db: Database, key_id: UUID) -> None:
    """Make a key unusable from now on; revoking twice is no error. Raises `NotFound`."""
    async with db.write() as session:
        changed = await session.scalar(
            update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(is_active=False).returning(ApiKeyRow.id)
        )
        if changed is None:
            raise NotFound("There is no such key.")


async def record_use(session: AsyncSession, key_id: UUID, credits_spent: int) -> None:
    """Count one job that succeeded with this key, and what it cost in the end."""
    await session.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.id == key_id)
        .values(uses=ApiKeyRow.uses + 1, credits_spent=ApiKeyRow.credits_spent + credits_spent, last_used_at=utc_now())
    )


def _hash(key: str) -> str:
    # Unsalted and fast is right here: the key has 256 random bits, and every request looks it up.
    return hashlib.sha256(key.encode()).hexdigest()


def _info(row: ApiKeyRow, username: str) -> KeyInfo:
    return KeyInfo(
        id=row.id,
        user_id=row.user_id,
        username=username,
        name=row.name,
        short_string=row.short_string,
        is_active=row.is_active,
        uses=row.uses,
        credits_spent=row.credits_spent,
        last_used_at=row.last_used_at,
        created_at=row.created_at,
    )
