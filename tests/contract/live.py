"""A real server on a real port in a thread, for clients that know nothing of tests."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from sfumato.api.app import create_app
from sfumato.api.serve import open_services
from sfumato.settings import Settings
from tests.fakes import FakeHost


@dataclass(frozen=True, kw_only=True)
class LiveServer:
    """Where the server is, and the first administrator's key."""

    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: threading.Event) -> None:
        super().__init__(config)
        self.listening = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@contextmanager
def live_server(folder: Path, **settings: Any) -> Iterator[LiveServer]:
    """Serve the built-in model by a fake engine, from an empty folder, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    chosen = Settings(data_dir=folder, port=port, **settings)
    listening, found = threading.Event(), dict[str, Any]()

    async def serve() -> None:
        services, key = await open_services(chosen, [FakeHost()])
        config = uvicorn.Config(create_app(services), log_config=None, access_log=False, ws="none", lifespan="on")
        found["key"], found["server"] = key, _Server(config, listening)
        await found["server"].serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        assert listening.wait(timeout=30)
        yield LiveServer(port=port, key=found["key"].key)
    finally:
        found["server"].should_exit = True
        thread.join(timeout=30)
        listener.close()
    assert not thread.is_alive()
