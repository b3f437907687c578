"""Transactions and migrations on a real SQLite file."""

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from sfumato.storage.database import Database
from sfumato.storage.tables import Base, UserRow
from tests.factories import open_database


async def test_the_migrations_make_exactly_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))

    async with open_database(tmp_path) as db, db.read() as session:
        assert await (await session.connection()).run_sync(differences) == []


async def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        async with db.write() as session:
            session.add(UserRow(username="ada", role="user"))
        await db.migrate()
        async with db.read() as session:
            assert (await session.execute(text("select count(*) from users"))).scalar() == 1


async def test_two_processes_may_migrate_at_the_same_time(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'sfumato.db'}"
    databases = [await Database.open(url) for _ in range(3)]
    await asyncio.gather(*(db.migrate() for db in databases))
    for db in databases:
        await db.close()


async def test_the_journal_is_a_write_ahead_log_and_foreign_keys_hold(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db, db.read() as session:
        assert (await session.execute(text("pragma journal_mode"))).scalar() == "wal"
        assert (await session.execute(text("pragma foreign_keys"))).scalar() == 1


async def test_an_error_rolls_the_transaction_back(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:

        async def write_and_fail() -> None:
            async with db.write() as session:
                session.add(UserRow(username="ada", role="user"))
                await session.flush()
                raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            await write_and_fail()
        async with db.read() as session:
            assert (await session.execute(text("select count(*) from users"))).scalar() == 0


async def test_a_canceled_transaction_is_rolled_back_and_frees_the_writer(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:
        has_written = asyncio.Event()

        async def write_for_ever() -> None:
            async with db.write() as session:
                session.add(UserRow(username="ada", role="user"))
                await session.flush()
                has_written.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(write_for_ever())
        await has_written.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with db.write() as session:
            assert (await session.execute(text("select count(*) from users"))).scalar() == 0


async def test_a_reader_sees_no_part_of_a_transaction_and_does_not_hold_it_up(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db, db.read() as reader:
        assert (await reader.execute(text("select count(*) from users"))).scalar() == 0
        async with db.write() as session:
            session.add(UserRow(username="ada", role="user"))
        assert (await reader.execute(text("select count(*) from users"))).scalar() == 0


async def test_many_writers_of_two_processes_never_find_the_database_locked(tmp_path: Path) -> None:
    async with open_database(tmp_path) as one, open_database(tmp_path) as other:

        async def count_up(db: Database) -> None:
            async with db.write() as session:
                seen = (await session.execute(text("select count(*) from users"))).scalar()
                session.add(UserRow(username=f"user{seen}", role="user"))

        await asyncio.gather(*(count_up(db) for _ in range(25) for db in (one, other)))
        async with one.read() as session:
            assert (await session.execute(text("select count(*) from users"))).scalar() == 50


async def test_a_transaction_canceled_at_any_moment_is_whole_or_absent_and_the_next_one_works(tmp_path: Path) -> None:
    async with open_database(tmp_path) as db:

        async def write_two(n: int) -> None:
            async with db.write() as session:
                session.add(UserRow(username=f"a{n}", role="user"))
                await session.flush()
                session.add(UserRow(username=f"b{n}", role="user"))

        for ticks in range(40):
            task = asyncio.create_task(write_two(ticks))
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async with db.write() as session:
                rows = (
                    await session.execute(text(f"select count(*) from users where username like '_{ticks}'"))
                ).scalar()
            assert rows in (0, 2)
