"""`sfumato serve` from outside: what it prints, and that it stops cleanly."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sfumato.api.serve import open_services, run, welcome
from sfumato.core.errors import Conflict
from sfumato.settings import Settings
from tests.fakes import FakeHost

ROOT = Path(__file__).parents[2]
SERVER = """
import sys
import sfumato.api.serve as serve
from sfumato.settings import Settings
from tests.fakes import FakeHost
serve.LocalHost = lambda settings: FakeHost(automatic=sys.argv[2] == "answers")
serve.run(Settings(data_dir=sys.argv[1], port=0))
"""


@contextlib.contextmanager
def server(folder: Path, *, engine: str = "answers") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server process whose engine is fake, and what it printed when it was up."""
    command = [sys.executable, "-c", SERVER, str(folder), engine]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        words = "".join(iter(process.stdout.readline, "Press Ctrl-C to stop.\n"))
        try:
            yield process, words
        finally:
            process.kill()


def stop(process: "subprocess.Popen[str]") -> str:
    """Press Ctrl-C, see a clean end, and return what was logged."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    return errors


def test_an_empty_folder_becomes_a_service_whose_printed_line_works(tmp_path: Path) -> None:
    with server(tmp_path / "data") as (_, words):
        assert re.search(r"\n    sc-[0-9a-f]{64}\n", words)
        line = words.partition("    curl")[2]
        subprocess.run(["bash", "-c", f"curl{line}"], cwd=tmp_path, check=True, timeout=30)
        assert (tmp_path / "apple.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_stops_it_without_a_traceback(tmp_path: Path) -> None:
    with server(tmp_path) as (process, _):
        assert stop(process) == ""


def test_ctrl_c_answers_who_waits_and_keeps_the_job(tmp_path: Path) -> None:
    with server(tmp_path, engine="is silent") as (process, words):
        address = re.findall(r"http://127\.0\.0\.1:\d+", words)[0]
        headers = {"Authorization": f"Bearer {re.findall(r'sc-[0-9a-f]{64}', words)[0]}"}
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(httpx.post, f"{address}/v1/image/generate", json={}, headers=headers, timeout=30)
            while httpx.get(f"{address}/v1/credits", headers=headers).json()["total_remaining_credits"] == 1_000_000:
                pass
            errors = stop(process)
            response = answer.result()
        assert (response.status_code, response.json()["error"]) == (503, "The server is stopping; the job is kept.")
        assert "Traceback" not in errors


def test_a_port_that_is_taken_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"Cannot listen on 127\.0\.0\.1 port {port}: Address already in use\."):
            run(Settings(data_dir=tmp_path, port=port))


async def test_the_first_key_is_made_once(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    keys = []
    for _ in range(2):
        services, key = await open_services(settings, [FakeHost()])
        await services.db.close()
        keys.append(key)
    assert keys[0] is not None
    assert keys[1] is None


def test_without_a_new_key_the_printed_line_asks_for_one() -> None:
    words = welcome("http://127.0.0.1:8000", None)
    assert "sfumato keys create" in words
    assert "Bearer sc-YOUR-KEY" in words
