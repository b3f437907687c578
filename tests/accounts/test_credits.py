"""Credits: the order of spending, never below zero, refunded once, and a ledger that adds up."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from sfumato.accounts import credits as ledger
from sfumato.accounts.keys import Caller
from sfumato.core.errors import InsufficientCredits, InvalidRequest, NotFound
from sfumato.core.jobs import Dialect
from sfumato.storage.database import Database
from sfumato.storage.jobs import insert_job
from sfumato.storage.tables import CreditGrantRow, LedgerEntryRow
from tests.factories import balance_of, make_caller, make_request, open_database

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TOMORROW = NOW + timedelta(days=1)


async def make_job(db: Database, caller: Caller) -> UUID:
    async with db.write() as session:
        job = await insert_job(
            session,
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            dialect=Dialect.NATIVE,
            request=make_request(),
            cost_credits=1,
        )
    return job.id


async def charge(db: Database, caller: Caller, job_id: UUID, amount: int, now: datetime = NOW) -> None:
    async with db.write() as session:
        await ledger.charge(session, caller.user_id, job_id, amount, now=now)


async def refund(db: Database, caller: Caller, job_id: UUID, amount: int, now: datetime = NOW) -> int:
    async with db.write() as session:
        return await ledger.refund(session, caller.user_id, job_id, amount, now=now)


async def remaining(db: Database, caller: Caller) -> dict[str, int]:
    async with db.read() as session:
        rows = await session.scalars(select(CreditGrantRow).where(CreditGrantRow.user_id == caller.user_id))
        return {row.type_name: row.remaining for row in rows}


async def assert_ledger_adds_up(db: Database) -> None:
    async with db.read() as session:
        moved = await session.scalar(select(func.sum(LedgerEntryRow.amount)))
        left = await session.scalar(select(func.sum(CreditGrantRow.remaining)))
    assert moved == left


async def test_refunds_are_spent_first_then_what_expires_soonest(tmp_path: Path) -> None:
    # The example of the Stablecog contract, section 4: Free 6, gift 3 (expires tomorrow), Refund 2; a job of 4.
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=6)
        await ledger.grant(db, caller.user_id, 3, "Gift", expires_at=TOMORROW)
        await ledger.grant(db, caller.user_id, 2, "Refund")
        await charge(db, caller, await make_job(db, caller), 4)
        assert await remaining(db, caller) == {"Free": 6, "Gift": 1, "Refund": 0}
        async with db.read() as session:
            assert await ledger.balance(session, caller.user_id, now=NOW) == 7
        await assert_ledger_adds_up(db)


async def test_a_refund_goes_back_to_where_it_came_from(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=6)
        await ledger.grant(db, caller.user_id, 3, "Gift", expires_at=TOMORROW)
        job_id = await make_job(db, caller)
        await charge(db, caller, job_id, 5)
        assert await refund(db, caller, job_id, 5) == 5
        assert await remaining(db, caller) == {"Free": 6, "Gift": 3}
        await assert_ledger_adds_up(db)


async def test_a_partial_refund_returns_what_was_taken_last(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=6)
        await ledger.grant(db, caller.user_id, 3, "Gift", expires_at=TOMORROW)
        job_id = await make_job(db, caller)
        await charge(db, caller, job_id, 5)
        assert await refund(db, caller, job_id, 2) == 2
        assert await remaining(db, caller) == {"Free": 6, "Gift": 0}


async def test_a_second_refund_gives_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=6)
        job_id = await make_job(db, caller)
        await charge(db, caller, job_id, 4)
        assert await refund(db, caller, job_id, 1) == 1
        assert await refund(db, caller, job_id, 4) == 0
        assert await balance_of(db, caller) == 3
        await assert_ledger_adds_up(db)


async def test_no_more_is_refunded_than_was_charged(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=6)
        job_id = await make_job(db, caller)
        assert await refund(db, caller, job_id, 4) == 0
        await charge(db, caller, job_id, 4)
        assert await refund(db, caller, job_id, 40) == 4
        assert await balance_of(db, caller) == 6


async def test_the_database_itself_refuses_a_second_refund_entry(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=6)
        job_id = await make_job(db, caller)
        await charge(db, caller, job_id, 4)
        await refund(db, caller, job_id, 4)
        async with db.read() as session:
            entry = await session.scalar(select(LedgerEntryRow).where(LedgerEntryRow.kind == "refund"))
        assert entry is not None
        again = LedgerEntryRow(
            user_id=entry.user_id, grant_id=entry.grant_id, job_id=entry.job_id, kind="refund", amount=4
        )
        with pytest.raises(IntegrityError):
            async with db.write() as session:
                session.add(again)


async def test_credits_whose_grant_expired_come_back_without_expiry_and_paid_ones_stay_paid(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=0)
        await ledger.grant(db, caller.user_id, 2, "Free", expires_at=TOMORROW)
        await ledger.grant(db, caller.user_id, 3, "Gift", expires_at=TOMORROW + timedelta(hours=1))
        job_id = await make_job(db, caller)
        await charge(db, caller, job_id, 5)
        assert await refund(db, caller, job_id, 5, now=TOMORROW + timedelta(days=1)) == 5
        assert await remaining(db, caller) == {"Free": 0, "Gift": 0, "Refund": 2, "Refund Non-free": 3}
        await assert_ledger_adds_up(db)


async def test_a_refund_into_the_grant_that_was_also_charged_is_one_entry(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=0)
        await ledger.grant(db, caller.user_id, 2, "Free", expires_at=TOMORROW)
        await ledger.grant(db, caller.user_id, 1, "Refund")
        job_id = await make_job(db, caller)
        await charge(db, caller, job_id, 3)
        assert await refund(db, caller, job_id, 3, now=TOMORROW) == 3
        assert await remaining(db, caller) == {"Free": 0, "Refund": 3}


async def test_expired_future_and_tippable_credits_cannot_be_spent(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=0)
        await ledger.grant(db, caller.user_id, 5, "Gift", expires_at=NOW)
        await ledger.grant(db, caller.user_id, 5, "Gift", starts_at=TOMORROW)
        await ledger.grant(db, caller.user_id, 5, "Tippable")
        with pytest.raises(InsufficientCredits):
            await charge(db, caller, await make_job(db, caller), 1)
        async with db.read() as session:
            assert await ledger.balance(session, caller.user_id, now=NOW) == 0
            listed = await ledger.list_grants(session, caller.user_id, now=NOW)
        assert [grant.starts_at for grant in listed] == [TOMORROW]


async def test_too_few_credits_charge_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=3)
        with pytest.raises(InsufficientCredits):
            await charge(db, caller, await make_job(db, caller), 4)
        assert await balance_of(db, caller) == 3
        await assert_ledger_adds_up(db)


async def test_the_balance_never_goes_below_zero_under_concurrent_charges(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db, balance=10)
        job_ids = [await make_job(db, caller) for _ in range(30)]
        results = await asyncio.gather(*(charge(db, caller, job_id, 1) for job_id in job_ids), return_exceptions=True)
        assert sum(result is None for result in results) == 10
        assert sum(isinstance(result, InsufficientCredits) for result in results) == 20
        assert await balance_of(db, caller) == 0
        await assert_ledger_adds_up(db)


@pytest.mark.parametrize("amount", [0, -1])
async def test_a_grant_of_nothing_is_refused(tmp_path: Path, amount: int) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        with pytest.raises(InvalidRequest):
            await ledger.grant(db, caller.user_id, amount)


async def test_a_grant_to_nobody_or_of_an_unknown_type_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        with pytest.raises(InvalidRequest, match="no credit type"):
            await ledger.grant(db, caller.user_id, 1, "Gold")
        with pytest.raises(NotFound):
            await ledger.grant(db, uuid4(), 1)
