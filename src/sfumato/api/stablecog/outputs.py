"""`GET /v1/image/generation/outputs`: the caller's pictures, page by page."""

import hashlib
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from sfumato.accounts.keys import Caller
from sfumato.api.auth import StablecogCaller
from sfumato.api.services import Services, ServicesOf, picture_url
from sfumato.api.stablecog.cursors import next_cursor
from sfumato.api.stablecog.queries import OutputsQuery, read_query
from sfumato.api.stablecog.schedulers import scheduler_of
from sfumato.api.stablecog.wire import GoResponse, float32, format_time, number
from sfumato.core.ids import derived_id
from sfumato.core.jobs import Job, Output
from sfumato.storage import jobs

PATHS = ("/v1/image/generation/outputs", "/v1/image/generation/outputs/", "/v1/image/outputs")


async def list_outputs(request: Request, services: ServicesOf, caller: StablecogCaller) -> Response:
    """List the caller's outputs, newest first; `next` of one page is the `cursor` of the following."""
    query = read_query(request.query_params, services.registry)
    body: dict[str, Any] = {}
    async with services.db.read() as session:
        if query.cursor is None:
            body["total"] = body["total_count"] = await jobs.count_outputs(session, caller.user_id, where=query.where)
    items, following = await _read_page(services, caller.user_id, query)
    if following is not None:
        body["next"] = str(next_cursor([output.created_at for output, _ in items], following, query.cursor))
    async with services.db.read() as session:
        whole_jobs = await jobs.get_jobs(session, {job.id for _, job in items})
    body["outputs"] = [_output(request, caller, output, whole_jobs[job.id]) for output, job in items]
    return GoResponse(body)


async def _read_page(services: Services, user_id: UUID, query: OutputsQuery) -> tuple[list[tuple[Output, Job]], Any]:
    """Return the page's outputs with their jobs, and the creation time of the one that follows, or None."""
    cursor = query.cursor
    skipped = cursor.shown if cursor else 0
    async with services.db.read() as session:
        page = await jobs.list_outputs(
            session,
            user_id,
            cursor=cursor.start(ascending=query.ascending) if cursor else None,
            limit=skipped + query.per_page + 1,
            ascending=query.ascending,
            where=query.where,
        )
    found = page.items[skipped:]
    following = found[query.per_page][0].created_at if len(found) > query.per_page else None
    return list(found[: query.per_page]), following


def _output(request: Request, caller: Caller, output: Output, job: Job) -> dict[str, Any]:
    return {
        "id": str(output.id),
        "image_url": picture_url(request, output.id),
        "created_at": format_time(output.created_at),
        "updated_at": format_time(output.updated_at),
        "is_favorited": output.is_favorited,
        "gallery_status": output.gallery_status,
        "was_auto_submitted": output.was_auto_submitted,
        "is_public": output.is_public,
        "like_count": 0,
        "is_liked": False,
        "generation": _generation(request, caller, job),
    }


def _generation(request: Request, caller: Caller, job: Job) -> dict[str, Any]:
    wanted = job.request
    body: dict[str, Any] = {"id": str(job.id)}
    body |= {"started_at": format_time(job.started_at)} if job.started_at else {}
    body |= {"completed_at": format_time(job.finished_at)} if job.finished_at else {}
    body |= {
        "created_at": format_time(job.created_at),
        "user": {"username": caller.username, "identifier": hashlib.sha256(str(job.user_id).encode()).hexdigest()},
        "prompt": _prompt("prompt", wanted.prompt),
    }
    body |= {"negative_prompt": _prompt("negative_prompt", wanted.negative_prompt)} if wanted.negative_prompt else {}
    return body | {
        "model_id": str(derived_id("model", wanted.model)),
        "scheduler_id": str(scheduler_of(wanted.sampler).id),
        "width": wanted.width,
        "height": wanted.height,
        "seed": wanted.seed,
        "inference_steps": wanted.steps,
        "guidance_scale": number(float32(wanted.guidance_scale)),
        "num_outputs": wanted.image_count,
        "status": job.status.value,
        "outputs": [_output_in_generation(request, output) for output in job.outputs],
    }


def _output_in_generation(request: Request, output: Output) -> dict[str, Any]:
    return {
        "id": str(output.id),
        "image_url": picture_url(request, output.id),
        "gallery_status": output.gallery_status,
        "is_favorited": output.is_favorited,
        "was_auto_submitted": output.was_auto_submitted,
    }


def _prompt(kind: str, text: str) -> dict[str, str]:
    return {"id": str(derived_id(kind, text)), "text": text}


def add_routes(router: APIRouter) -> None:
    """Add the route under all its names."""
    for path in PATHS:
        router.get(path, include_in_schema=path == PATHS[0])(list_outputs)
