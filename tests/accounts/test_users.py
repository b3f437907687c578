"""Users: unique names in lower case, first credits, and an administrator on an empty database."""

import asyncio
from pathlib import Path

import pytest

from sfumato.accounts.keys import authenticate
from sfumato.accounts.users import (
    Role,
    create_user,
    ensure_administrator,
    find_user,
    first_administrator,
    list_users,
)
from sfumato.core.errors import Conflict, InvalidRequest, NotFound, Unauthorized
from tests.factories import balance_of, open_database


async def test_an_empty_database_gets_one_administrator_whose_key_works(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        created = await ensure_administrator(db, 1000)
        assert created is not None
        caller = await authenticate(db, created.key)
        assert (caller.username, caller.role) == ("admin", Role.ADMIN)
        assert await balance_of(db, caller) == 1000
        assert await ensure_administrator(db, 1000) is None


async def test_servers_that_start_together_make_one_administrator(tmp_path: Path) -> None:
    async with open_database(tmp_path) as one, open_database(tmp_path) as other:
        created = await asyncio.gather(*(ensure_administrator(db, 1) for db in (one, other)))
        assert sum(key is not None for key in created) == 1


async def test_the_first_administrator_can_be_called_upon_without_a_key(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        with pytest.raises(Unauthorized):
            await first_administrator(db)
        await ensure_administrator(db, 1)
        caller = await first_administrator(db)
        assert (caller.username, caller.api_key_id) == ("admin", None)


async def test_a_user_is_found_by_name_in_any_case_and_by_id(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        user = await create_user(db, "Ada-1", initial_credits=5)
        assert user.username == "ada-1"
        assert await find_user(db, "ADA-1") == user
        assert await find_user(db, user.id) == user
        assert await list_users(db) == [user]
        with pytest.raises(NotFound):
            await find_user(db, "nobody")


async def test_a_name_can_be_taken_once(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        await create_user(db, "ada", initial_credits=0)
        with pytest.raises(Conflict):
            await create_user(db, "ADA", initial_credits=0)


@pytest.mark.parametrize("name", ["", "ab", "1abc", "a" * 26, "a b c", "a_bc", "añb"])
async def test_a_name_that_is_not_a_word_of_letters_digits_and_hyphens_is_refused(tmp_path: Path, name: str) -> None:
    async with open_database(tmp_path) as db:
        with pytest.raises(InvalidRequest):
            await create_user(db, name, initial_credits=0)
