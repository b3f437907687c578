"""Makers of what many tests need; each returns a fresh thing and keeps no state."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sfumato.accounts import credits as ledger
from sfumato.accounts.keys import Caller, authenticate, create_key
from sfumato.accounts.users import Role, create_user
from sfumato.core.ids import derived_id
from sfumato.core.models import Family, ModelInfo
from sfumato.core.requests import GenerationRequest
from sfumato.models.registry import ModelRegistry
from sfumato.scheduling.hosts import Host
from sfumato.scheduling.service import GenerationService
from sfumato.settings import Settings
from sfumato.storage.database import Database
from sfumato.storage.objects import ObjectStore
from tests.fakes import FakeHost, no_pause


def make_settings(folder: Path, **values: Any) -> Settings:
    """Settings with `folder` as the data folder."""
    return Settings(data_dir=folder, **values)


def make_model(name: str = "test-model", **values: Any) -> ModelInfo:
    """A model that no engine will load."""
    defaults: dict[str, Any] = {
        "id": derived_id("model", name),
        "name": name,
        "title": name,
        "family": Family.BUILTIN,
        "location": f"/nowhere/{name}",
        "default_width": 64,
        "default_height": 64,
    }
    return ModelInfo(**{**defaults, **values})


def make_registry(*models: ModelInfo) -> ModelRegistry:
    """A registry of these models, or of "test-model" alone; the first is the default."""
    models = models or (make_model(),)
    return ModelRegistry(models=models, default=models[0])


def make_request(**values: Any) -> GenerationRequest:
    """A small request for "test-model"."""
    defaults: dict[str, Any] = {"prompt": "a red apple", "model": "test-model", "width": 64, "height": 64, "steps": 10}
    return GenerationRequest(**{**defaults, "seed": 7, **values})


@asynccontextmanager
async def open_database(folder: Path) -> AsyncIterator[Database]:
    """A real, migrated SQLite file in `folder`."""
    db = await Database.open(f"sqlite+aiosqlite:///{folder / 'sfumato.db'}")
    try:
        await db.migrate()
        yield db
    finally:
        await db.close()


async def make_caller(
    db: Database, *, balance: int = 100, username: str | None = None, role: Role = Role.USER
) -> Caller:
    """A new user with these credits, calling with a new key."""
    user = await create_user(db, username or f"u{uuid4().hex[:12]}", role, initial_credits=balance)
    key = await create_key(db, user.id)
    return await authenticate(db, key.key)


async def balance_of(db: Database, caller: Caller) -> int:
    """What the caller can spend now, from the database."""
    async with db.read() as session:
        return await ledger.balance(session, caller.user_id)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A started service with what it stands on."""

    service: GenerationService
    db: Database
    objects: ObjectStore
    settings: Settings
    host: FakeHost


@asynccontextmanager
async def run_service(
    folder: Path,
    *,
    host: FakeHost | None = None,
    more_hosts: Sequence[Host] = (),
    registry: ModelRegistry | None = None,
    pause: Callable[[float], Awaitable[None]] = no_pause,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A service on a real database and object store in `folder`, started, and stopped at the end."""
    host = host or FakeHost()
    chosen = make_settings(folder, **settings)
    objects = ObjectStore.open(chosen.objects_url)
    async with open_database(folder) as db:
        service = GenerationService(db, objects, registry or make_registry(), [host, *more_hosts], chosen, pause=pause)
        await service.start()
        try:
            yield Running(service=service, db=db, objects=objects, settings=chosen, host=host)
        finally:
            await service.stop()
