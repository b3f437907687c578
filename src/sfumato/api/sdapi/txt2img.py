"""`POST /sdapi/v1/txt2img` and `/img2img`, and interrupting them."""

import asyncio
from collections.abc import Callable
from functools import partial
from uuid import UUID

import structlog
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

import sfumato
from sfumato.accounts.keys import Caller
from sfumato.api.auth import SdapiCaller
from sfumato.api.openapi import body_of
from sfumato.api.sdapi.fields import GenerationBody, Img2ImgBody, Txt2ImgBody
from sfumato.api.sdapi.headers import ignored_header, notes_header, task_header
from sfumato.api.sdapi.options import Overrides, read_overrides
from sfumato.api.sdapi.prompts import read_prompts
from sfumato.api.sdapi.refusals import refuse_unsupported
from sfumato.api.sdapi.results import render
from sfumato.api.sdapi.sources import Given, read_hires, read_img2img, read_refiner
from sfumato.api.sdapi.state import SdapiState, StateOf
from sfumato.api.sdapi.tasks import Task, new_task_id
from sfumato.api.sdapi.translation import batches, to_request
from sfumato.api.sdapi.wire import SdapiResponse, read_body
from sfumato.api.services import Services, ServicesOf
from sfumato.core.errors import GenerationFailed, error_from_code
from sfumato.core.jobs import Dialect, Job, JobStatus

logger = structlog.get_logger(__name__)

_MAX_TASK_ID_CHARACTERS = 500


async def txt2img(request: Request, services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """Generate pictures and answer with all of them; the request is canceled if its client leaves."""
    body = await read_body(request, Txt2ImgBody)
    return await _generate(body, lambda _: read_hires(body, services.registry), request, services, state, caller)


async def img2img(request: Request, services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """Generate pictures from given ones, whole or under a mask; otherwise as txt2img."""
    body = await read_body(request, Img2ImgBody)
    return await _generate(body, partial(read_img2img, body), request, services, state, caller)


async def _generate(
    body: GenerationBody,
    read_given: Callable[[Overrides], Given],
    request: Request,
    services: Services,
    state: SdapiState,
    caller: Caller,
) -> Response:
    refuse_unsupported(body)
    overrides = read_overrides(state.checkpoints, caller.user_id, body.override_settings or {})
    prompts = await asyncio.to_thread(read_prompts, body, overrides, state.styles, services.registry.add_ons)
    given = await asyncio.to_thread(read_given, overrides)
    takes_unknown_samplers = services.settings.sdapi_takes_unknown_samplers
    refiner = read_refiner(body, services.registry)
    wanted = to_request(body, overrides, prompts, given, refiner, takes_unknown_samplers=takes_unknown_samplers)
    job = await services.service.submit(caller, wanted, Dialect.SDAPI, given.files)
    task = Task(
        id=(body.force_task_id or new_task_id())[:_MAX_TASK_ID_CHARACTERS],
        job_id=job.id,
        request=job.request,
        batches=batches(body),
        started_at=job.created_at,
    )
    with state.tasks.running(caller.user_id, task):
        job = await _end_of(job, request, services)
    if body.override_settings_restore_afterwards is False:
        state.checkpoints.choose(caller.user_id, overrides.model)
        state.checkpoints.choose_vae(caller.user_id, overrides.vae)
        state.checkpoints.choose_prompting(caller.user_id, overrides.prompting)
    content = await render(body, job, overrides.model, services.objects, sfumato.__version__)
    if overrides.ignored:
        logger.info("options without effect", names=overrides.ignored[:50])
    notes = notes_header((*prompts.notes, *job.notes))
    return SdapiResponse(content, headers=task_header(task.id) | ignored_header(overrides.ignored) | notes)


async def interrupt(services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """End the caller's own tasks; each answers with its pictures as far as they are."""
    await _interrupt_all(services, state, caller)
    return SdapiResponse({})


async def skip(services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """Do as `interrupt`: the batches of a task are made together here, so there is no later one to go on to."""
    await _interrupt_all(services, state, caller)
    return SdapiResponse(None)


def add_routes(router: APIRouter) -> None:
    """Add both, and the two ways to stop them."""
    router.post("/sdapi/v1/txt2img", openapi_extra=body_of(Txt2ImgBody))(txt2img)
    router.post("/sdapi/v1/img2img", openapi_extra=body_of(Img2ImgBody))(img2img)
    router.post("/sdapi/v1/interrupt")(interrupt)
    router.post("/sdapi/v1/skip")(skip)


async def _end_of(job: Job, request: Request, services: Services) -> Job:
    """Wait for a job's end; raise what it failed of. A job interrupted before it began comes back without pictures."""
    timeout = services.settings.sdapi_timeout_seconds
    waiting = asyncio.ensure_future(services.service.wait(job.id, timeout_seconds=timeout))
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await _cancel_for_departed(services, job.id)
        ended = await waiting
    finally:
        waiting.cancel()
        leaving.cancel()
    if ended.status is JobStatus.FAILED:
        raise error_from_code(ended.error_code or GenerationFailed.code, ended.error_message or "The job failed.")
    return ended


async def _cancel_for_departed(services: Services, job_id: UUID) -> None:
    logger.info("client left; its job is canceled", job_id=str(job_id))
    await services.service.cancel(job_id)
    raise ClientDisconnect


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _interrupt_all(services: Services, state: SdapiState, caller: Caller) -> None:
    for task in state.tasks.active(caller.user_id):
        await services.service.cancel(task.job_id, keep_partial=True)
