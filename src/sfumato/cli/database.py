"""Commands that work on the database directly, whether or not a server runs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from sfumato.core.errors import SfumatoError
from sfumato.settings import Settings
from sfumato.storage.database import Database

Result = TypeVar("Result")


def with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Open the database, bring its tables up to date, do `work` and close it again.

    Raises `SfumatoError` when the database cannot be used; its message holds no part of the URL.
    """
    try:
        return asyncio.run(_run(settings.database_url, work))
    except (SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        # Drivers put the whole address into some messages, so only the kind of failure is shown.
        raise SfumatoError(
            f"The database cannot be used ({type(cause).__name__}).", hint="Check database_url and the data folder."
        ) from error


async def _run(url: str, work: Callable[[Database], Awaitable[Result]]) -> Result:
    db = await Database.open(url)
    try:
        await db.migrate()
        return await work(db)
    finally:
        await db.close()
