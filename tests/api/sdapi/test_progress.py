"""How far the caller's own tasks are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfumato.core.messages import Generate, Started, Step
from tests.api.harness import Api, make_user, run_api
from tests.fakes import FakeHost

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 10}


async def progress(api: Api) -> dict[str, Any]:
    body: dict[str, Any] = (await api.get("/sdapi/v1/progress")).json()
    return body


async def task_progress(api: Api, task_id: str, **body: Any) -> dict[str, Any]:
    response = await api.client.post("/internal/progress", json={"id_task": task_id, **body}, headers=api.user.basic)
    answer: dict[str, Any] = response.json()
    return answer


@asynccontextmanager
async def half_done(folder: Path, **body: Any) -> AsyncIterator[Api]:
    """A request of two batches that is half done: both pictures at step 5 of 10."""
    host = FakeHost(automatic=False)
    async with run_api(folder, host=host) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL, n_iter=2, **body))
        generate = await host.next(Generate)
        host.emit(Started(job_id=generate.job_id))
        host.emit(*(Step(job_id=generate.job_id, index=index, step=5, steps=10) for index in range(2)))
        while not any(active.step == 10 for active in api.services.service.active()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        yield api
        host.finish(generate)
        assert (await answer).status_code == 200
        await asyncio.sleep(0)
        assert (await progress(api))["progress"] == 0.0


async def test_idle_is_what_clients_take_for_ready(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        assert await progress(api) == {
            "progress": 0.0,
            "eta_relative": 0.0,
            "state": {
                "skipped": False,
                "interrupted": False,
                "stopping_generation": False,
                "job": "",
                "job_count": 0,
                "job_timestamp": "0",
                "job_no": 0,
                "sampling_step": 0,
                "sampling_steps": 0,
            },
            "current_image": None,
            "textinfo": None,
        }


async def test_a_running_task_tells_its_share_and_batch(tmp_path: Path) -> None:
    async with half_done(tmp_path) as api:
        body = await progress(api)
    assert body["progress"] == pytest.approx(0.51)
    assert body["eta_relative"] >= 0
    assert body["state"] | {"job_timestamp": ""} == {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": "Batch 2 out of 2",
        "job_count": 2,
        "job_timestamp": "",
        "job_no": 1,
        "sampling_step": 0,
        "sampling_steps": 10,
    }


async def test_a_waiting_task_is_neither_ready_nor_moving(tmp_path: Path) -> None:
    async with run_api(tmp_path, host=FakeHost(says_ready=False)) as api:
        answer = asyncio.create_task(api.txt2img(**SMALL, force_task_id="mine"))
        while not api.services.service.active():  # noqa: ASYNC110
            await asyncio.sleep(0)
        body = await progress(api)
        waiting = await task_progress(api, "mine")
        pending = (await api.get("/internal/pending-tasks")).json()
        await api.client.post("/sdapi/v1/interrupt", headers=api.user.basic)
        await answer
    assert (body["progress"], body["state"]["job_count"]) == (0.0, -1)
    assert waiting == {
        "active": False,
        "queued": True,
        "completed": False,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": "In queue: 1/1",
    }
    assert pending == {"size": 1, "tasks": ["mine"]}


async def test_a_task_can_be_watched_by_the_id_it_was_given(tmp_path: Path) -> None:
    async with half_done(tmp_path, force_task_id="mine") as api:
        running = await task_progress(api, "mine", id_live_preview=4)
        unknown = await task_progress(api, "other")
    assert (running["active"], running["progress"], running["id_live_preview"]) == (True, 0.5, 4)
    assert running["eta"] >= 0
    assert (unknown["active"], unknown["queued"], unknown["textinfo"]) == (False, False, "Waiting...")


async def test_a_finished_task_is_remembered_as_completed(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        for number in range(17):
            await api.txt2img(**SMALL, force_task_id=f"task {number}")
        assert (await task_progress(api, "task 16"))["completed"]
        assert (await task_progress(api, "task 1"))["completed"]
        assert not (await task_progress(api, "task 0"))["completed"]


async def test_nobody_sees_the_progress_of_others(tmp_path: Path) -> None:
    async with half_done(tmp_path, force_task_id="mine") as api:
        stranger = replace(api, user=await make_user(api.services, name="bob"))
        assert (await progress(stranger))["state"]["job_count"] == 0
        assert not (await task_progress(stranger, "mine"))["active"]
        assert (await stranger.get("/internal/pending-tasks")).json() == {"size": 0, "tasks": []}


async def test_a_question_without_a_task_is_a_422(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.post("/internal/progress", json={}, headers=api.user.basic)
    assert response.status_code == 422
    assert response.json() == {
        "detail": [{"loc": ["body", "id_task"], "msg": "field required", "type": "value_error.missing"}]
    }


async def test_ping_is_open(tmp_path: Path) -> None:
    async with run_api(tmp_path) as api:
        response = await api.client.get("/internal/ping")
    assert (response.status_code, response.text) == (200, "{}")
