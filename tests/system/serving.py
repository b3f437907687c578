"""A real `sfumato serve` in a process of its own, for tests that kill parts of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

LIMIT_SECONDS = 120


class Serving:
    """The service on a data folder; start it again on the same folder to see what it remembers."""

    def __init__(self, data: Path, model: Path) -> None:
        self._data = data
        self._model = model
        self._key: str | None = None
        self.start()

    def start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._data.mkdir(parents=True, exist_ok=True)
        log = (self._data / f"log-{port}.txt").open("w")
        command = [str(Path(sys.executable).parent / "sfumato"), "serve", "--port", str(port)]
        command += ["--data", str(self._data), "--model", str(self._model)]
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        self._log = Path(log.name)
        self.until(self.is_ready, "the service to be ready")

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.address + "/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def key(self) -> str:
        if self._key is None:
            found = re.search(r"sc-[0-9a-f]{64}", self.printed())
            assert found, self.printed()
            self._key = found.group()
        return self._key

    def printed(self) -> str:
        return self._log.read_text()

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=LIMIT_SECONDS)

    def engine_pid(self) -> int:
        (engine,) = psutil.Process(self.process.pid).children()
        return engine.pid

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll until the condition is truthy, and return what it gave."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the service ended: {self.printed()}")
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError(f"waited too long for {what}: {self.printed()}")

    def kill(self) -> None:
        """End the server process as a power cut would."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit status."""
        os.kill(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout=LIMIT_SECONDS)
