"""How far the caller's own tasks are: `/sdapi/v1/progress` and the `/internal` routes that know task ids.

Answers come from memory and wait for no engine. There are no previews in this version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from sfumato.api.auth import SdapiCaller
from sfumato.api.openapi import body_of
from sfumato.api.public import public
from sfumato.api.sdapi.coercion import Integer, RequiredText, Truth
from sfumato.api.sdapi.results import timestamp
from sfumato.api.sdapi.state import StateOf
from sfumato.api.sdapi.tasks import Task
from sfumato.api.sdapi.wire import SdapiResponse, read_body
from sfumato.api.services import Services, ServicesOf
from sfumato.core.jobs import JobStatus

_BASE = 0.01  # upstream shows this much as soon as a job runs


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A task that an engine has: `done` is the share of it that is made."""

    task: Task
    done: float
    seconds: float

    @property
    def batch(self) -> int:
        """The batch under way, from 0. Batches are made together; this is how far they would be one by one."""
        return min(int(self.done * self.task.batches), self.task.batches - 1)

    @property
    def step(self) -> int:
        return round((self.done * self.task.batches - self.batch) * self.task.request.steps)

    @property
    def job(self) -> str:
        return f"Batch {self.batch + 1} out of {self.task.batches}" if self.task.batches > 1 else "scripts_txt2img"


class ProgressBody(BaseModel):
    """What `/internal/progress` is asked."""

    model_config = ConfigDict(extra="ignore")

    id_task: RequiredText
    id_live_preview: Integer = -1
    live_preview: Truth = True


async def show_progress(services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """Tell how far the caller's oldest running task is; all zero when none is waiting."""
    tasks = state.tasks.active(caller.user_id)
    running = _oldest_running(services, tasks)
    if running is None:
        return SdapiResponse(_idle(state.tasks.last(caller.user_id), has_queued=bool(tasks)))
    progress = min(1.0, _BASE + running.done)
    return SdapiResponse(
        {
            "progress": progress,
            "eta_relative": running.seconds / progress - running.seconds,
            "state": _state(running.task, running),
            "current_image": None,
            "textinfo": None,
        }
    )


async def show_task_progress(request: Request, services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """Tell how far one of the caller's tasks is, by the id it was given as `force_task_id`."""
    body = await read_body(request, ProgressBody)
    tasks = state.tasks.active(caller.user_id)
    task = state.tasks.find(caller.user_id, body.id_task)
    running = _oldest_running(services, [task] if task else [])
    if running is None:
        place = tasks.index(task) + 1 if task else 0
        return SdapiResponse(
            _task_progress(
                queued=task is not None,
                completed=task is None and state.tasks.is_finished(caller.user_id, body.id_task),
                textinfo=f"In queue: {place}/{len(tasks)}" if task else "Waiting...",
            )
        )
    eta = running.seconds / running.done - running.seconds if running.done else None
    return SdapiResponse(_task_progress(active=True, progress=running.done, eta=eta, preview=body.id_live_preview))


async def list_pending(state: StateOf, caller: SdapiCaller) -> Response:
    """List the ids of the caller's waiting tasks."""
    ids = [task.id for task in state.tasks.active(caller.user_id)]
    return SdapiResponse({"size": len(ids), "tasks": ids})


@public
async def ping() -> Response:
    """Say that the process answers."""
    return SdapiResponse({})


def add_routes(router: APIRouter) -> None:
    """Add the routes of this module."""
    router.get("/sdapi/v1/progress")(show_progress)
    router.post("/internal/progress", openapi_extra=body_of(ProgressBody))(show_task_progress)
    router.get("/internal/pending-tasks")(list_pending)
    router.get("/internal/ping")(ping)


def _oldest_running(services: Services, tasks: Sequence[Task]) -> _Running | None:
    for task in tasks:
        progress = services.service.progress(task.job_id)
        if progress is not None and progress.status is JobStatus.RUNNING:
            began = progress.started_at or progress.created_at
            return _Running(task=task, done=progress.fraction, seconds=(datetime.now(UTC) - began).total_seconds())
    return None


def _idle(last: Task | None, *, has_queued: bool) -> dict[str, Any]:
    # Clients take "progress 0 and job_count 0" for "ready"; upstream shows -1 before the first batch begins.
    state = _state(last, None) | {"job_count": -1 if has_queued else 0}
    return {"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": None, "textinfo": None}


def _state(task: Task | None, running: _Running | None) -> dict[str, Any]:
    return {
        "skipped": False,
        "interrupted": False,
        "stopping_generation": False,
        "job": running.job if running else "",
        "job_count": running.task.batches if running else 0,
        "job_timestamp": timestamp(task.started_at) if task else "0",
        "job_no": running.batch if running else 0,
        "sampling_step": running.step if running else 0,
        "sampling_steps": task.request.steps if task else 0,
    }


def _task_progress(
    *,
    active: bool = False,
    queued: bool = False,
    completed: bool = False,
    progress: float | None = None,
    eta: float | None = None,
    textinfo: str | None = None,
    preview: int | None = -1,
) -> dict[str, Any]:
    return {
        "active": active,
        "queued": queued,
        "completed": completed,
        "progress": progress,
        "eta": eta,
        "live_preview": None,
        "id_live_preview": preview,
        "textinfo": textinfo,
    }
