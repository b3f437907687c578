"""An application on a real database and object store, with a fake engine and a client that calls it in-process."""

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from sfumato.accounts.keys import Caller, authenticate, create_key
from sfumato.accounts.users import Role, create_user
from sfumato.api.app import create_app
from sfumato.api.services import Services
from sfumato.core.models import ModelInfo
from tests.factories import balance_of, make_model, make_registry, run_service
from tests.fakes import FakeHost

CREATE = "/v1/image/generation/create"
TXT2IMG = "/sdapi/v1/txt2img"


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with a key."""

    key: str
    caller: Caller

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @property
    def basic(self) -> dict[str, str]:
        return basic("someone", self.key)


@dataclass(frozen=True, kw_only=True)
class Api:
    """The application, whoever calls it, and what it stands on."""

    app: FastAPI
    client: httpx.AsyncClient
    services: Services
    host: FakeHost
    user: User

    async def create(self, **body: Any) -> httpx.Response:
        """Ask for pictures over the Stablecog API."""
        return await self.client.post(CREATE, json=body, headers=self.user.bearer)

    async def txt2img(self, **body: Any) -> httpx.Response:
        """Ask for pictures over the AUTOMATIC1111 API."""
        return await self.client.post(TXT2IMG, json=body, headers=self.user.basic)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        """Read something with the user's key."""
        return await self.client.get(path, params=params, headers=self.user.bearer)

    async def balance(self) -> int:
        """Return what the user can spend now."""
        return await balance_of(self.services.db, self.user.caller)


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def wire_model(name: str = "test-model", **values: Any) -> ModelInfo:
    """A model of a size that the Stablecog API takes."""
    return make_model(name, **{"default_width": 256, "default_height": 256, **values})


async def make_user(services: Services, *, credit: int = 100, name: str = "ada", role: Role = Role.USER) -> User:
    """A new user with a key."""
    user = await create_user(services.db, name, role, initial_credits=credit)
    key = await create_key(services.db, user.id)
    return User(key=key.key, caller=await authenticate(services.db, key.key))


@asynccontextmanager
async def run_api(
    folder: Path,
    *,
    host: FakeHost | None = None,
    models: Sequence[ModelInfo] = (),
    credit: int = 100,
    role: Role = Role.USER,
    client_address: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[Api]:
    """An application that runs, called by "ada" with these credits."""
    registry = make_registry(*(models or (wire_model(),)))
    async with run_service(folder, host=host, registry=registry, **settings) as running:
        services = Services(
            settings=running.settings,
            db=running.db,
            objects=running.objects,
            registry=registry,
            service=running.service,
        )
        app = create_app(services)
        transport = httpx.ASGITransport(app, client=(client_address, 40000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            user = await make_user(services, credit=credit, role=role)
            yield Api(app=app, client=client, services=services, host=running.host, user=user)
