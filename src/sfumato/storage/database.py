"""The connection to the database: transactions that read, transactions that write, and migrations.

Knows SQLite's locking rules, so that nobody else has to; knows no table.
"""

import asyncio
import importlib.resources
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

_BUSY_TIMEOUT_SECONDS = 30
_WAL_ATTEMPTS = 200
_WAL_PAUSE_SECONDS = 0.05
_BEGIN = "sfumato_begin"


class Database:
    """One database and its pool of connections. Build with `open`, end with `close`.

    On SQLite there is one writer at a time: within the process by a lock, between processes by BEGIN IMMEDIATE and
    the busy timeout. A transaction that begins by reading and then writes could fail with "database is locked" at
    once, whatever the timeout, so `write` always takes the write lock first.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
        is_sqlite = engine.dialect.name == "sqlite"
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if is_sqlite else nullcontext()

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect to `url` (an SQLAlchemy URL with an async driver); SQLite's folder and file are made if missing."""
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return cls(create_async_engine(parsed, pool_pre_ping=True))
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(_keep_write_ahead_log, parsed.database)
        engine = create_async_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return cls(engine)

    async def close(self) -> None:
        """Close all connections."""
        await self._reader.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that sees one state of the database and writes nothing."""
        async with AsyncSession(self._reader, expire_on_commit=False) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that commits at exit and rolls back on an error."""
        async with self._turn, AsyncSession(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    async def migrate(self) -> None:
        """Bring the tables up to this version's, in one transaction.

        The transaction holds the write lock, so two processes that start together do not both migrate.
        """
        async with self._turn, self._writer.begin() as connection:
            await connection.run_sync(_upgrade)


def _keep_write_ahead_log(path: str) -> None:
    """Make the file keep a write-ahead log, as it then does for good.

    SQLite does not wait here while another process has the file open, whatever its busy timeout; so this tries again.
    """
    for attempt in range(_WAL_ATTEMPTS):
        try:
            with closing(sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if attempt == _WAL_ATTEMPTS - 1:
                raise
            time.sleep(_WAL_PAUSE_SECONDS)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so late and with a plain BEGIN.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _upgrade(connection: Connection) -> None:
    from alembic import command  # imported late: a command that needs no database need not wait for it
    from alembic.config import Config

    config = Config()
    with importlib.resources.as_file(importlib.resources.files("sfumato.storage") / "migrations") as folder:
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
