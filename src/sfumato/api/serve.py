"""`sfumato serve`: the whole service in one call, from an empty folder to a clean stop.

The port is opened first and the engine starts behind it: whoever calls early waits in line instead of being refused.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence

import uvicorn

import sfumato
from sfumato.accounts.keys import CreatedKey
from sfumato.accounts.users import ensure_administrator
from sfumato.api.app import create_app
from sfumato.api.logs import configure_logging
from sfumato.api.services import Services
from sfumato.core.errors import Conflict
from sfumato.models.registry import ModelRegistry
from sfumato.scheduling.hosts import Host
from sfumato.scheduling.hosts.local import LocalHost
from sfumato.scheduling.service import GenerationService
from sfumato.settings import Settings
from sfumato.storage.database import Database
from sfumato.storage.objects import ObjectStore

_BACKLOG = 2048
_GRACE_SECONDS = 10
_ANY_ADDRESS = ("0.0.0.0", "::", "")  # noqa: S104 (recognised, not bound)


def run(settings: Settings) -> None:
    """Serve until interrupted. Raises `Conflict` when the port is taken, and what opening the parts below raises."""
    configure_logging(settings.log_format, settings.log_level)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(settings))


async def open_services(settings: Settings, hosts: Sequence[Host] | None = None) -> tuple[Services, CreatedKey | None]:
    """Open the database, at this version's tables, and everything above it; nothing is started yet.

    The key is the first administrator's, when the database was empty. `hosts` is for tests; the default is one engine
    process on this machine.
    """
    registry = ModelRegistry.scan(settings)
    objects = ObjectStore.open(settings.objects_url)
    db = await Database.open(settings.database_url)
    await db.migrate()
    key = await ensure_administrator(db, settings.initial_admin_credits)
    service = GenerationService(db, objects, registry, [LocalHost(settings)] if hosts is None else hosts, settings)
    return Services(settings=settings, db=db, objects=objects, registry=registry, service=service), key


def welcome(address: str, key: CreatedKey | None) -> str:
    """Return what is printed once the service answers: where it is, the key if new, and a line to paste."""
    shown = key.key if key else "sc-YOUR-KEY"
    about_key = (
        f"Your API key, shown only this once:\n\n    {key.key}\n"
        if key
        else "Use a key you have, or make one with: sfumato keys create\n"
    )
    return f"""
Sfumato {sfumato.__version__} is at {address}

{about_key}
Make a picture and save it:

    curl -s {address}/v1/image/generation/create -H "Authorization: Bearer {shown}" \\
      -d '{{"prompt": "a red apple", "width": 256, "height": 256, "num_outputs": 1}}' \\
      | grep -o 'http[^"]*png' | head -n 1 | xargs curl -s -o apple.png

Press Ctrl-C to stop.
"""


class _Server(uvicorn.Server):
    """uvicorn, with a word when it is up, and the engines told first when it is to stop."""

    def __init__(self, config: uvicorn.Config, services: Services, words: str) -> None:
        super().__init__(config)
        self._services = services
        self._words = words

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            sys.stdout.write(self._words)
            sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Requests that wait for pictures are answered by this; without it they would hold up the stop.
        await self._services.service.stop()
        await super().shutdown(sockets)


async def _serve(settings: Settings) -> None:
    listener = _listen(settings.host, settings.port)
    services, key = await open_services(settings)
    config = uvicorn.Config(
        create_app(services),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    words = welcome(settings.public_url or _address_of(listener), key)
    await _Server(config, services, words).serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Open the port. Raises `Conflict`, whose hint says what else to try."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise Conflict(
            f"Cannot listen on {host} port {port}: {reason}.", hint="Choose another with --host or --port."
        ) from None
    return listener


def _address_of(listener: socket.socket) -> str:
    """Return a URL by which this machine reaches the service."""
    host, port = listener.getsockname()[:2]
    if host in _ANY_ADDRESS:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
