"""Keys: made once, kept as a hash, refused when malformed, unknown or revoked."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from sfumato.accounts.keys import authenticate, create_key, list_keys, record_use, revoke_key
from sfumato.accounts.users import create_user
from sfumato.core.errors import NotFound, Unauthorized
from sfumato.storage.tables import ApiKeyRow, UserRow
from tests.factories import make_caller, open_database


async def test_a_key_is_sc_and_64_hex_digits_and_its_owner_is_found_by_it(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        user = await create_user(db, "ada", initial_credits=0)
        key = await create_key(db, user.id, "laptop")
        assert re.fullmatch(r"sc-[0-9a-f]{64}", key.key)
        assert key.short_string == f"sc-...{key.key[-4:]}"
        caller = await authenticate(db, key.key)
        assert (caller.user_id, caller.username, caller.role, caller.api_key_id) == (user.id, "ada", "user", key.id)


async def test_the_key_itself_is_neither_stored_nor_shown_in_a_log(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        user = await create_user(db, "ada", initial_credits=0)
        key = await create_key(db, user.id)
        async with db.read() as session:
            row = (await session.scalars(select(ApiKeyRow))).one()
        assert key.key not in str(vars(row))
        assert key.key not in repr(key)


@pytest.mark.parametrize("key", ["", "sc-", "sc-" + "0" * 64, "sc-" + "A" * 64, "sc-" + "0" * 65, "x" * 67, "sc-é"])
async def test_a_malformed_or_unknown_key_is_refused(tmp_path: Path, key: str) -> None:
    async with open_database(tmp_path) as db:
        with pytest.raises(Unauthorized):
            await authenticate(db, key)


async def test_a_revoked_key_is_refused_and_still_listed(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        user = await create_user(db, "ada", initial_credits=0)
        key = await create_key(db, user.id)
        await revoke_key(db, key.id)
        await revoke_key(db, key.id)
        with pytest.raises(Unauthorized):
            await authenticate(db, key.key)
        assert [(info.id, info.is_active) for info in await list_keys(db, user.id)] == [(key.id, False)]


async def test_a_key_of_an_inactive_user_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        user = await create_user(db, "ada", initial_credits=0)
        key = await create_key(db, user.id)
        async with db.write() as session:
            await session.execute(update(UserRow).values(is_active=False))
        with pytest.raises(Unauthorized):
            await authenticate(db, key.key)


async def test_no_key_is_made_for_nobody_and_none_revoked_that_is_not_there(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        with pytest.raises(NotFound):
            await create_key(db, uuid4())
        with pytest.raises(NotFound):
            await revoke_key(db, uuid4())


async def test_keys_are_listed_for_one_user_or_for_all(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        one, other = await make_caller(db), await make_caller(db)
        assert [info.id for info in await list_keys(db, one.user_id)] == [one.api_key_id]
        assert {info.id for info in await list_keys(db)} == {one.api_key_id, other.api_key_id}


async def test_a_use_counts_once_with_its_cost(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        caller = await make_caller(db)
        assert caller.api_key_id is not None
        for _ in range(2):
            async with db.write() as session:
                await record_use(session, caller.api_key_id, 3)
        (info,) = await list_keys(db)
        assert (info.uses, info.credits_spent) == (2, 6)
        assert info.last_used_at is not None
        assert info.last_used_at.tzinfo is not None
