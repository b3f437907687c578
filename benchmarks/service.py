"""Time a real service on this machine: start to first picture, throughput by clients, and the share outside networks.

    python -m benchmarks.service [--rounds 3] [--pictures 24] [--json FILE]

Starts `sfumato serve` on an empty folder with the built-in model and drives it over HTTP on loopback. Absolute times on
shared machines move; compare figures of one run. The clients' step counts are a fixed mix of 10 to 50.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

STEP_MIX = (10, 20, 14, 30, 12, 25, 50, 16)
CLIENTS = (1, 4, 16)
START_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process."""

    port_open_seconds: float
    ready_seconds: float
    first_picture_seconds: float


@dataclass(frozen=True)
class Load:
    """Pictures per second with so many clients, and how long one waits."""

    clients: int
    pictures_per_second: float
    median_seconds: float
    slowest_seconds: float
    mean_rows_per_turn: float


@dataclass(frozen=True)
class Shares:
    """Where the wall time of one 20-step picture goes, for one client, as parts of 1."""

    wall_seconds: float
    network: float
    decode: float
    text: float
    outside: float


class Service:
    """A running `sfumato serve` on a free port."""

    def __init__(self, data: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = (data / "log.txt").open("w+")
        self.began = time.perf_counter()
        command = [str(Path(sys.executable).parent / "sfumato"), "serve", "--port", str(self.port), "--data", str(data)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=dict(os.environ))

    def wait_until_open(self) -> float:
        while self._elapsed() < START_LIMIT_SECONDS:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self._elapsed()
            time.sleep(0.02)
        raise TimeoutError(self.printed())

    def wait_until_ready(self) -> float:
        while self._elapsed() < START_LIMIT_SECONDS:
            try:
                if httpx.get(self.address + "/readyz").status_code == 200:
                    return self._elapsed()
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise TimeoutError(self.printed())

    def key(self) -> str:
        while (found := re.search(r"sc-[0-9a-f]{64}", self.printed())) is None:
            time.sleep(0.02)
        return found.group()

    def printed(self) -> str:
        return Path(self.log.name).read_text()

    def _elapsed(self) -> float:
        return time.perf_counter() - self.began

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.close()


@contextmanager
def running() -> Iterator[Service]:
    """Serve from an empty folder for as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        try:
            yield service
        finally:
            service.stop()


def body(number: int, steps: int) -> dict[str, object]:
    return {
        "prompt": ("a red apple", "a blue car", "a cat on a green background")[number % 3],
        "width": 256, "height": 256, "num_outputs": 1, "inference_steps": steps, "seed": number,
    }  # fmt: skip


def measure_start() -> Start:
    """Start a service on an empty folder and ask for a picture at once."""
    with running() as service:
        port_open = service.wait_until_open()
        key = service.key()
        headers = {"Authorization": f"Bearer {key}"}
        url = service.address + "/v1/image/generation/create"
        httpx.post(url, json=body(0, 20), headers=headers, timeout=120).raise_for_status()
        first = time.perf_counter() - service.began
        # The engine is ready before its first picture; asking in between would only add load.
        return Start(port_open, service.wait_until_ready(), first)


async def measure_load(service: Service, key: str, clients: int, pictures: int) -> Load:
    """Let clients ask for pictures one after another, with mixed step counts, until so many are made."""
    waits: list[float] = []
    numbers = iter(range(pictures))
    before = turn_totals(service, key)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=service.address, headers=headers, timeout=600) as http:

        async def client() -> None:
            for number in numbers:
                began = time.perf_counter()
                steps = STEP_MIX[number % len(STEP_MIX)]
                reply = await http.post("/v1/image/generation/create", json=body(number, steps))
                reply.raise_for_status()
                waits.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
    after = turn_totals(service, key)
    rows = (after["rows_sum"] - before["rows_sum"]) / (after["rows_count"] - before["rows_count"])
    return Load(clients, pictures / seconds, statistics.median(waits), max(waits), rows)


def turn_totals(service: Service, key: str) -> dict[str, float]:
    """Read the sums that the service keeps of turns and phases from its metrics."""
    text = httpx.get(service.address + "/metrics", headers={"Authorization": f"Bearer {key}"}).raise_for_status().text

    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    return {
        "rows_sum": value("sfumato_turn_rows_sum"),
        "rows_count": value("sfumato_turn_rows_count"),
        "turn": value("sfumato_turn_seconds_sum"),
        "overhead": value("sfumato_turn_overhead_seconds_sum"),
        "text": value('sfumato_phase_seconds_total{phase="encode"}'),
        "decode": value('sfumato_phase_seconds_total{phase="decode"}'),
    }


def measure_shares(service: Service, key: str, pictures: int) -> Shares:
    """Make pictures one at a time and compare the client's wall time with the time the networks took."""
    before = turn_totals(service, key)
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=service.address, headers=headers, timeout=120) as http:
        began = time.perf_counter()
        for number in range(pictures):
            http.post("/v1/image/generation/create", json=body(number, 20)).raise_for_status()
        wall = time.perf_counter() - began
    after = turn_totals(service, key)
    spent = {name: after[name] - before[name] for name in after}
    network = spent["turn"] - spent["overhead"]
    inside = network + spent["decode"] + spent["text"]
    return Shares(wall / pictures, network / wall, spent["decode"] / wall, spent["text"] / wall, (wall - inside) / wall)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    starts = [measure_start() for _ in range(options.rounds)]
    loads: list[Load] = []
    with running() as service:
        service.wait_until_ready()
        key = service.key()
        asyncio.run(measure_load(service, key, 4, 8))  # kernels are built and widths found
        for _ in range(options.rounds):  # interleaved, so that a neighbour's noise falls on all alike
            loads += [asyncio.run(measure_load(service, key, clients, options.pictures)) for clients in CLIENTS]
        shares = [measure_shares(service, key, 5) for _ in range(options.rounds)]
    report(starts, loads, shares)
    if options.json:
        rows = {"start": starts, "load": loads, "shares": shares}
        options.json.write_text(
            json.dumps({name: [asdict(r) for r in found] for name, found in rows.items()}, indent=1)
        )


def report(starts: list[Start], loads: list[Load], shares: list[Shares]) -> None:
    """Print medians as Markdown."""

    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    print(f"Start to open port {median(s.port_open_seconds for s in starts):.2f} s, ", end="")
    print(f"to first 256x256 picture of 20 steps {median(s.first_picture_seconds for s in starts):.2f} s\n")
    print("| clients | pictures/s | of one client's | median wait s | slowest s | rows a turn |")
    print("| --- | --- | --- | --- | --- | --- |")
    single = median(r.pictures_per_second for r in loads if r.clients == CLIENTS[0])
    for clients in CLIENTS:
        own = [load for load in loads if load.clients == clients]
        rate = median(r.pictures_per_second for r in own)
        print(
            f"| {clients} | {rate:.2f} | {rate / single:.2f} | {median(r.median_seconds for r in own):.2f} "
            f"| {median(r.slowest_seconds for r in own):.2f} | {median(r.mean_rows_per_turn for r in own):.1f} |"
        )
    print("\n| of one picture's wall time | share |\n| --- | --- |")
    for name in ("network", "decode", "text", "outside"):
        print(f"| {name} | {median(getattr(s, name) for s in shares) * 100:.1f} % |")
    print(f"\nWall time of a picture: {median(s.wall_seconds for s in shares):.2f} s")


if __name__ == "__main__":
    main()
