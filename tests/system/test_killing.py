"""Whatever process dies, no accepted job and no credit is lost: a real service, a real engine, kill -9."""

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.engine import tiny
from tests.system.serving import Serving

REQUEST = {"prompt": "a red apple", "width": 256, "height": 256, "num_outputs": 2, "inference_steps": 50, "seed": 7}
CREATE = "/v1/image/generation/create"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp("model") / "tiny-sd")


@pytest.fixture
def serving(tmp_path: Path, model: Path) -> Iterator[Serving]:
    service = Serving(tmp_path / "data", model)
    yield service
    if service.process.poll() is None:
        service.process.terminate()
        service.process.wait(timeout=60)


def credits_of(http: httpx.Client) -> int:
    total: int = http.get("/v1/credits").raise_for_status().json()["total_remaining_credits"]
    return total


def outputs_of(http: httpx.Client) -> list[dict[str, Any]]:
    outputs: list[dict[str, Any]] = http.get("/v1/image/generation/outputs").raise_for_status().json()["outputs"]
    return outputs


def turns(http: httpx.Client) -> float:
    found = re.search(r"^sfumato_turn_rows_count (\S+)$", http.get("/metrics").raise_for_status().text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def picture(http: httpx.Client, output: dict[str, Any]) -> bytes:
    return http.get(output["image_url"]).raise_for_status().content


def test_a_killed_engine_costs_time_but_neither_job_nor_credit(serving: Serving) -> None:
    with serving.client() as http, ThreadPoolExecutor() as pool:
        before = credits_of(http)
        undisturbed = http.post(CREATE, json=REQUEST).raise_for_status().json()
        turned = turns(http)
        waiting = pool.submit(http.post, CREATE, json=REQUEST)
        serving.until(lambda: turns(http) > turned + 5, "the job to be drawn")
        engine = serving.engine_pid()
        os.kill(engine, signal.SIGKILL)
        reply = waiting.result()
        assert reply.status_code == 200, reply.text
        assert serving.engine_pid() != engine
        assert credits_of(http) == before - 4
        assert len(outputs_of(http)) == 4
        for first, again in zip(undisturbed["outputs"], reply.json()["outputs"], strict=True):
            assert picture(http, first) == picture(http, again), "the same seed must give the same picture"


def test_a_killed_server_finds_its_job_again(serving: Serving) -> None:
    with serving.client() as http, ThreadPoolExecutor() as pool:
        before = credits_of(http)
        turned = turns(http)
        waiting = pool.submit(http.post, CREATE, json=REQUEST)
        serving.until(lambda: turns(http) > turned + 5, "the job to be drawn")
        engine = psutil.Process(serving.engine_pid())
        serving.kill()
        with pytest.raises(httpx.TransportError):
            waiting.result()
    engine.wait(timeout=60)  # it ends with its pipe
    serving.start()
    with serving.client() as http:
        serving.until(lambda: len(outputs_of(http)) == 2, "the job to be finished")
        assert credits_of(http) == before - 2


def test_ctrl_c_stops_everything_and_leaves_no_trace_of_an_error(serving: Serving) -> None:
    engine = psutil.Process(serving.engine_pid())
    assert serving.interrupt() == 0
    assert not engine.is_running()
    assert "Traceback" not in serving.printed()
