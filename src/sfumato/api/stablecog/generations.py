"""`POST /v1/image/generation/create`: a prompt in, addresses of pictures out, in one answer."""

from typing import Any

import structlog
from fastapi import APIRouter, Request, Response

from sfumato.accounts.keys import Caller
from sfumato.api.auth import StablecogCaller
from sfumato.api.openapi import body_of
from sfumato.api.services import Services, ServicesOf, picture_url
from sfumato.api.stablecog.errors import of_failed_generation
from sfumato.api.stablecog.requests import CreateBody, take_order
from sfumato.api.stablecog.wire import GoResponse, read_body
from sfumato.core.errors import GenerationCanceled, GenerationFailed, InvalidRequest, SfumatoError, error_from_code
from sfumato.core.jobs import Dialect, Job, JobStatus, Output
from sfumato.core.requests import GenerationRequest

logger = structlog.get_logger(__name__)

PATHS = (
    "/v1/image/generation/create",
    "/v1/image/generation/create/",
    "/v1/image/generate",
    "/v1/image/generate/",
)


async def create_generation(request: Request, services: ServicesOf, caller: StablecogCaller) -> Response:
    """Generate pictures. Missing fields get the values of the defaults route; answers when all are there."""
    order = take_order(await read_body(request, CreateBody), services.registry)
    try:
        job = await _generate(services, caller, order.request)
        remaining_credits = await services.service.balance(caller.user_id)
    except InvalidRequest:
        raise  # the order itself is at fault: answered without settings
    except SfumatoError as error:
        logger.info("refused or failed", code=error.code, reason=error.message)
        return of_failed_generation(error, order.settings)
    outputs = [_output(request, output) for output in job.outputs]
    return GoResponse({"outputs": outputs, "remaining_credits": remaining_credits, "settings": order.settings})


async def _generate(services: Services, caller: Caller, wanted: GenerationRequest) -> Job:
    """Run a job to its end; raise what ended it unless it succeeded."""
    job = await services.service.submit(caller, wanted, Dialect.STABLECOG)
    job = await services.service.wait(job.id, timeout_seconds=services.settings.generation_timeout_seconds)
    if job.status is JobStatus.SUCCEEDED:
        return job
    if job.status is JobStatus.CANCELED:
        raise GenerationCanceled("The generation was canceled.")
    raise error_from_code(job.error_code or GenerationFailed.code, job.error_message or "The generation failed.")


def _output(request: Request, output: Output) -> dict[str, Any]:
    url = picture_url(request, output.id)
    return {"id": str(output.id), "url": url, "image_url": url}


def add_routes(router: APIRouter) -> None:
    """Add both names of the route, with and without a final slash."""
    for path in PATHS:
        is_first = path == PATHS[0]
        router.post(path, include_in_schema=is_first, openapi_extra=body_of(CreateBody))(create_generation)
