"""The body of a generation request: read, filled with defaults, checked in the hosted service's order.

The texts are the hosted service's; the limits are those of its documents (docs/stablecog.md, "Limits").
"""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sfumato.api.stablecog.schedulers import DEFAULT_SCHEDULER, Scheduler, scheduler_or_default
from sfumato.api.stablecog.wire import float32, number, parse_uuid
from sfumato.api.texts import clean_text
from sfumato.core.errors import InvalidRequest, NotSupported, UnknownModel
from sfumato.core.models import ModelInfo
from sfumato.core.requests import LATENT_FACTOR, GenerationRequest, NoiseSource, PromptSyntax
from sfumato.models.registry import ModelRegistry

MIN_SIDE, MAX_SIDE = 256, 1024
MIN_STEPS, MAX_STEPS = 10, 50
MIN_GUIDANCE, MAX_GUIDANCE = 1.0, 20.0
MAX_OUTPUTS = 4
MAX_PIXEL_STEPS = 1024 * 1024 * 30
MAX_PROMPT_CHARACTERS = 500
MAX_RANDOM_SEED = 2147483646

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 7.0
DEFAULT_OUTPUTS = 2
DEFAULT_PROMPT_STRENGTH = 0.5


def _uuid_from_text(value: object) -> object:
    return parse_uuid(value) if isinstance(value, str) else value


def _float32(value: float) -> float:
    try:
        return float32(value)
    except OverflowError:
        raise ValueError("out of range") from None


Text = Annotated[str, AfterValidator(clean_text)]
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Float32 = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_float32)]
Id = Annotated[UUID, BeforeValidator(_uuid_from_text)]


class CreateBody(BaseModel):
    """What a client may send. Fields without an entry here are ignored, as they are there."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    prompt: Text = ""
    negative_prompt: Text = ""
    model_id: Id | None = None
    scheduler_id: Id | None = None
    width: Int32 | None = None
    height: Int32 | None = None
    num_outputs: Int32 | None = None
    guidance_scale: Float32 | None = None
    inference_steps: Int32 | None = None
    seed: Int64 | None = None
    init_image_url: Text = ""
    mask_image_url: Text = ""
    prompt_strength: Float32 | None = None
    submit_to_gallery: bool = False
    process_type: Text = ""
    output_image_extension: Text = ""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A checked request and what the answer's `settings` says of it."""

    request: GenerationRequest
    settings: dict[str, Any]


def take_order(body: CreateBody, registry: ModelRegistry) -> Order:
    """Fill in defaults and check everything; raise `InvalidRequest` with the hosted service's text."""
    model = _find_model(body, registry)
    scheduler = scheduler_or_default(body.scheduler_id)
    request = _filled(body, model or registry.default, scheduler)
    _check_side("Height", request.height)
    _check_side("Width", request.width)
    _check_guidance(request.guidance_scale)
    _check_steps(request)
    _check_outputs(request.image_count)
    if model is None:
        raise InvalidRequest("invalid_model_id")
    _refuse_later_fields(body)
    return Order(request=request, settings=settings_of(request, model.id, scheduler))


def settings_of(request: GenerationRequest, model_id: UUID, scheduler: Scheduler) -> dict[str, Any]:
    """Return the `settings` object of an answer."""
    return {
        "model_id": str(model_id),
        "scheduler_id": str(scheduler.id),
        "width": request.width,
        "height": request.height,
        "num_outputs": request.image_count,
        "guidance_scale": number(request.guidance_scale),
        "inference_steps": request.steps,
        "seed": request.seed,
    }


def defaults_for(model: ModelInfo) -> dict[str, Any]:
    """Return what a request that says nothing gets, as the defaults route tells it."""
    return {
        "model_id": str(model.id),
        "scheduler_id": str(DEFAULT_SCHEDULER.id),
        "width": model.default_width,
        "height": model.default_height,
        "num_outputs": DEFAULT_OUTPUTS,
        "guidance_scale": number(DEFAULT_GUIDANCE),
        "inference_steps": DEFAULT_STEPS,
        "prompt_strength": DEFAULT_PROMPT_STRENGTH,
    }


def fold(prompt: str) -> str:
    """Put a prompt on one line with single spaces and cut it to 500 characters."""
    return " ".join(prompt.split())[:MAX_PROMPT_CHARACTERS]


def _find_model(body: CreateBody, registry: ModelRegistry) -> ModelInfo | None:
    if body.model_id is None:
        return registry.default
    try:
        return registry.by_id(body.model_id)
    except UnknownModel:
        return None  # told later, after the checks that come before it


def _filled(body: CreateBody, model: ModelInfo, scheduler: Scheduler) -> GenerationRequest:
    return GenerationRequest(
        prompt=fold(body.prompt),
        negative_prompt=fold(body.negative_prompt),
        prompt_syntax=PromptSyntax.PLAIN,
        model=str(model.id),
        width=model.default_width if body.width is None else body.width,
        height=model.default_height if body.height is None else body.height,
        steps=DEFAULT_STEPS if body.inference_steps is None else body.inference_steps,
        guidance_scale=DEFAULT_GUIDANCE if body.guidance_scale is None else body.guidance_scale,
        sampler=scheduler.sampler,
        schedule=scheduler.schedule,
        seed=_given(body.seed, secrets.randbelow(MAX_RANDOM_SEED + 1)),
        noise_source=NoiseSource.GPU,
        image_count=_given(body.num_outputs, DEFAULT_OUTPUTS),
    )


def _given(value: int | None, default: int) -> int:
    # A negative seed or number of outputs counts as not given there.
    return default if value is None or value < 0 else value


def _check_side(name: str, side: int) -> None:
    if side > MAX_SIDE:
        raise InvalidRequest(f"{name} is too large, max is: {MAX_SIDE}")
    if side < MIN_SIDE:
        raise InvalidRequest(f"{name} is too small, min is: {MIN_SIDE}")
    if side % LATENT_FACTOR:
        raise InvalidRequest(f"{name} must be a multiple of {LATENT_FACTOR}")


def _check_guidance(guidance: float) -> None:
    if guidance < MIN_GUIDANCE:
        raise InvalidRequest(f"Guidance scale is too small, min is: {MIN_GUIDANCE:f}")
    if guidance > MAX_GUIDANCE:
        raise InvalidRequest(f"Guidance scale is too large, max is: {MAX_GUIDANCE:f}")


def _check_steps(request: GenerationRequest) -> None:
    width, height, steps = request.width, request.height, request.steps
    if steps < MIN_STEPS:
        raise InvalidRequest(f"Inference steps is too small, min is: {MIN_STEPS}")
    if steps > MAX_STEPS:
        raise InvalidRequest(f"Inference steps is too large, max is: {MAX_STEPS}")
    if width * height * steps > MAX_PIXEL_STEPS:
        raise InvalidRequest(f"Pick fewer inference steps or smaller dimensions: {width} - {height} - {steps}")


def _check_outputs(count: int) -> None:
    if count > MAX_OUTPUTS:
        raise InvalidRequest(f"Number of outputs can't be more than {MAX_OUTPUTS}")
    if count < 1:
        raise InvalidRequest("Number of outputs can't be less than 1")


def _refuse_later_fields(body: CreateBody) -> None:
    for name, is_asked in (
        ("init_image_url", bool(body.init_image_url)),
        ("mask_image_url", bool(body.mask_image_url)),
        ("submit_to_gallery", body.submit_to_gallery),
    ):
        if is_asked:
            raise NotSupported(f"{name} is not supported by this version of Sfumato.", field=name)
