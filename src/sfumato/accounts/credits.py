"""Credits: grants that run out and expire, and a ledger of every movement.

A grant's `remaining` is the balance; the ledger says how it came about: for every user, the sum of the ledger's
amounts is the sum of `remaining`. Only whole transactions move credits, so both change together or not at all.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from sfumato.core.errors import InsufficientCredits, InvalidRequest, NotFound
from sfumato.core.ids import derived_id
from sfumato.storage.database import Database
from sfumato.storage.tables import CreditGrantRow, LedgerEntryRow, UserRow, utc_now

NEVER = datetime(2100, 1, 1, 5, tzinfo=UTC)
"""The expiry of what does not expire, as the Stablecog API writes it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class CreditType:
    """Where credits come from; `amount` is what such a grant usually holds (0: it varies)."""

    id: UUID
    name: str
    amount: int = 0
    description: str = ""


# The first five ids are those of the Stablecog API.
FREE = CreditType(id=UUID("3b12b23e-478b-4c18-8e34-70b3f0af1ee6"), name="Free", amount=50)
REFUND = CreditType(id=UUID("7ca94fd6-c201-4ca6-a9bf-4473c83e30b4"), name="Refund")
REFUND_NON_FREE = CreditType(id=UUID("6d86f50a-64d7-4d04-8c7a-a4afa071c202"), name="Refund Non-free")
TIPPABLE = CreditType(id=UUID("74cc89d3-fb00-4cca-9573-95c6786cf186"), name="Tippable")
TIPPED = CreditType(id=UUID("d7e2e70e-aaa4-475c-a522-1f9c1c28f25f"), name="Tipped")
GIFT = CreditType(id=derived_id("credit_type", "Gift"), name="Gift", description="Given by an administrator.")

CREDIT_TYPES: Mapping[str, CreditType] = {
    kind.name: kind for kind in (FREE, REFUND, REFUND_NON_FREE, TIPPABLE, TIPPED, GIFT)
}
_REFUND_IDS = (REFUND.id, REFUND_NON_FREE.id)


class EntryKind(StrEnum):
    """Why credits moved."""

    GRANT = "grant"
    CHARGE = "charge"
    REFUND = "refund"


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Credits of one origin as their owner sees them."""

    id: UUID
    type_id: UUID
    type_name: str
    type_amount: int
    description: str
    remaining: int
    starts_at: datetime
    expires_at: datetime


async def grant(
    db: Database,
    user_id: UUID,
    amount: int,
    type_name: str = GIFT.name,
    *,
    starts_at: datetime = _EPOCH,
    expires_at: datetime = NEVER,
) -> Grant:
    """Give a user credits. Raises `InvalidRequest` for an amount below 1 or an unknown type, and `NotFound`."""
    if amount < 1:
        raise InvalidRequest(f"The amount must be at least 1, not {amount}.", field="amount")
    if type_name not in CREDIT_TYPES:
        known = ", ".join(CREDIT_TYPES)
        raise InvalidRequest(f"There is no credit type named {type_name!r}.", field="type", hint=f"One of: {known}.")
    async with db.write() as session:
        if await session.get(UserRow, user_id) is None:
            raise NotFound("There is no such user.")
        kind = CREDIT_TYPES[type_name]
        return await insert_grant(session, user_id, amount, kind, starts_at=starts_at, expires_at=expires_at)


async def insert_grant(
    session: AsyncSession,
    user_id: UUID,
    amount: int,
    kind: CreditType,
    *,
    starts_at: datetime = _EPOCH,
    expires_at: datetime = NEVER,
) -> Grant:
    """Give a user credits within a transaction."""
    row = _new_grant(user_id, kind, amount, starts_at=starts_at, expires_at=expires_at)
    session.add(row)
    await session.flush()
    session.add(LedgerEntryRow(user_id=user_id, grant_id=row.id, kind=EntryKind.GRANT.value, amount=amount))
    await session.flush()
    return _grant(row)


async def balance(session: AsyncSession, user_id: UUID, *, now: datetime | None = None) -> int:
    """Return what the user can spend now."""
    query = select(func.coalesce(func.sum(CreditGrantRow.remaining), 0)).where(*_spendable(user_id, now or utc_now()))
    return int(await session.scalar(query) or 0)


async def list_grants(session: AsyncSession, user_id: UUID, *, now: datetime | None = None) -> list[Grant]:
    """Return the user's grants that have not expired, also empty and future ones, soonest expiry first.

    Tippable credits are left out: they cannot be spent.
    """
    query = (
        select(CreditGrantRow)
        .where(
            CreditGrantRow.user_id == user_id,
            CreditGrantRow.expires_at > (now or utc_now()),
            CreditGrantRow.type_id != TIPPABLE.id,
        )
        .order_by(CreditGrantRow.expires_at, CreditGrantRow.created_at, CreditGrantRow.id)
    )
    return [_grant(row) for row in await session.scalars(query)]


async def charge(
    session: AsyncSession, user_id: UUID, job_id: UUID, amount: int, *, now: datetime | None = None
) -> None:
    """Take `amount` credits for a job: refunds first, then the soonest to expire; one job may drain several grants.

    Raises `InsufficientCredits`; the transaction must then be rolled back.
    """
    query = (
        select(CreditGrantRow.id, CreditGrantRow.remaining)
        .where(*_spendable(user_id, now or utc_now()), CreditGrantRow.remaining > 0)
        .order_by(
            case((CreditGrantRow.type_id.in_(_REFUND_IDS), 0), else_=1),
            CreditGrantRow.expires_at,
            CreditGrantRow.created_at,
            CreditGrantRow.id,
        )
        .with_for_update()  # on SQLite the transaction holds the write lock already
    )
    missing = amount
    for grant_id, remaining in (await session.execute(query)).all():
        taken = min(missing, remaining)
        if taken == 0:
            break
        await _move(session, user_id, grant_id, job_id, EntryKind.CHARGE, -taken)
        missing -= taken
    if missing:
        raise InsufficientCredits(
            f"This costs {amount} credits and {amount - missing} are left.", hint="Ask the administrator for credits."
        )


async def refund(
    session: AsyncSession, user_id: UUID, job_id: UUID, amount: int, *, now: datetime | None = None
) -> int:
    """Give back `amount` of what a job was charged, and return how much that was.

    The first call for a job decides; any later one gives nothing. Credits go back to the grants they came from, last
    taken first; those of a grant that has expired meanwhile go to one that never does.
    """
    entries = await session.execute(
        select(LedgerEntryRow.kind, LedgerEntryRow.amount, CreditGrantRow)
        .join(CreditGrantRow, CreditGrantRow.id == LedgerEntryRow.grant_id)
        .where(LedgerEntryRow.job_id == job_id)
        .order_by(LedgerEntryRow.created_at.desc(), LedgerEntryRow.id)
    )
    moves = entries.all()
    if any(kind == EntryKind.REFUND for kind, _, _ in moves):
        return 0
    returned: dict[UUID, int] = defaultdict(int)
    missing = amount
    for _, charged, origin in moves:
        back = min(missing, -charged)
        if back > 0:
            target = await _refund_target(session, origin, now or utc_now())
            returned[target] += back
            missing -= back
    for grant_id, back in returned.items():
        await _move(session, user_id, grant_id, job_id, EntryKind.REFUND, back)
    return amount - missing


async def _refund_target(session: AsyncSession, origin: CreditGrantRow, now: datetime) -> UUID:
    """Return the grant that takes credits back: the one they came from, else the user's refund grant, made if need be.

    Paid credits must not turn into ones that count as free, so there is a refund grant of each kind.
    """
    if origin.expires_at > now:
        return origin.id
    kind = REFUND if origin.type_id in (FREE.id, REFUND.id) else REFUND_NON_FREE
    query = select(CreditGrantRow.id).where(
        CreditGrantRow.user_id == origin.user_id,
        CreditGrantRow.type_id == kind.id,
        CreditGrantRow.expires_at == NEVER,
    )
    found = await session.scalar(query.order_by(CreditGrantRow.created_at).limit(1))
    if found is not None:
        return found
    row = _new_grant(origin.user_id, kind, 0)
    session.add(row)
    await session.flush()
    return row.id


async def _move(
    session: AsyncSession, user_id: UUID, grant_id: UUID, job_id: UUID, kind: EntryKind, amount: int
) -> None:
    changed = await session.scalar(
        update(CreditGrantRow)
        .where(CreditGrantRow.id == grant_id, CreditGrantRow.remaining + amount >= 0)
        .values(remaining=CreditGrantRow.remaining + amount)
        .returning(CreditGrantRow.id)
        .execution_options(synchronize_session=False)
    )
    if changed is None:
        raise InsufficientCredits("The credits were spent meanwhile.")
    session.add(LedgerEntryRow(user_id=user_id, grant_id=grant_id, job_id=job_id, kind=kind.value, amount=amount))
    await session.flush()


def _spendable(user_id: UUID, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        CreditGrantRow.user_id == user_id,
        CreditGrantRow.starts_at <= now,
        CreditGrantRow.expires_at > now,
        CreditGrantRow.type_id != TIPPABLE.id,
    )


def _new_grant(
    user_id: UUID, kind: CreditType, amount: int, *, starts_at: datetime = _EPOCH, expires_at: datetime = NEVER
) -> CreditGrantRow:
    return CreditGrantRow(
        user_id=user_id,
        type_id=kind.id,
        type_name=kind.name,
        type_amount=kind.amount,
        description=kind.description,
        remaining=amount,
        starts_at=starts_at,
        expires_at=expires_at,
    )


def _grant(row: CreditGrantRow) -> Grant:
    return Grant(
        id=row.id,
        type_id=row.type_id,
        type_name=row.type_name,
        type_amount=row.type_amount,
        description=row.description,
        remaining=row.remaining,
        starts_at=row.starts_at,
        expires_at=row.expires_at,
    )
