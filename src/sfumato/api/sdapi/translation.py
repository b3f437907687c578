"""From a body, its prompts and pictures already read, to a `GenerationRequest`."""

import secrets
from dataclasses import replace
from typing import TypeVar

from sfumato.api.sdapi.fields import GenerationBody, Img2ImgBody
from sfumato.api.sdapi.options import Overrides
from sfumato.api.sdapi.prompts import Prompts
from sfumato.api.sdapi.sampling_options import guidance_skips, sampler_options, schedule_options
from sfumato.api.sdapi.sources import Given, first_size
from sfumato.core.errors import InvalidRequest, UnknownSampler
from sfumato.core.passes import Refiner
from sfumato.core.requests import (
    LATENT_FACTOR,
    MAX_IMAGES,
    GenerationRequest,
    PromptSyntax,
    SeedResize,
    Variation,
)
from sfumato.core.sampling import AUTOMATIC, SAMPLERS, SamplerInfo, ScheduleInfo, find_sampler, find_schedule

MAX_RANDOM_SEED = 4294967293
_Value = TypeVar("_Value")


def to_request(
    body: GenerationBody,
    overrides: Overrides,
    prompts: Prompts,
    given: Given,
    refiner: Refiner | None = None,
    *,
    takes_unknown_samplers: bool = False,
) -> GenerationRequest:
    """Translate a body whose unsupported fields were refused already.

    Null means the published default. Raises `InvalidRequest` for counts that make no picture; what the engine cannot
    do is found when the request is submitted. With `takes_unknown_samplers` an unknown sampler is the first of the list
    and an unknown schedule is Automatic, as upstream has it; otherwise both raise `UnknownSampler`.
    """
    sampler, schedule = _sampler(body, takes_unknown=takes_unknown_samplers)
    keys = overrides.sampling
    width, height = first_size(body)
    hires = given.hires
    if hires is not None:
        hires = replace(hires, prompt=prompts.hr_prompt or None, negative_prompt=prompts.hr_negative_prompt or None)
    return GenerationRequest(
        prompt=prompts.prompt,
        negative_prompt=prompts.negative_prompt,
        prompt_syntax=PromptSyntax.A1111,
        prompt_options=prompts.options,
        adapters=prompts.adapters,
        embeddings=prompts.embeddings,
        model=str(overrides.model.id),
        width=width,
        height=height,
        steps=_given(body.steps, 50),
        guidance_scale=_given(body.cfg_scale, 7.0),
        sampler=sampler.name,
        schedule=schedule.label,
        sampler_options=sampler_options(body, keys, sampler),
        schedule_options=schedule_options(keys),
        guidance_skips=guidance_skips(body, keys),
        seed=_seed(body.seed),
        variation=_variation(body),
        seed_resize=_seed_resize(body),
        eta_seed_delta=keys.eta_noise_seed_delta,
        noise_source=overrides.noise_source,
        vae=overrides.vae,
        image_count=_image_count(body, given),
        source=given.source,
        hires=hires,
        refiner=refiner,
    )


def batch_size(body: GenerationBody) -> int:
    """Return how many pictures a batch has: with several pictures to begin from, as many as there are."""
    sources = len(body.init_images or ()) if isinstance(body, Img2ImgBody) else 1
    return sources if sources > 1 else _given(body.batch_size, 1)


def batches(body: GenerationBody) -> int:
    """Return how many batches were asked for."""
    return _given(body.n_iter, 1)


def _sampler(body: GenerationBody, *, takes_unknown: bool) -> tuple[SamplerInfo, ScheduleInfo]:
    name, schedule = body.sampler_name or body.sampler_index, body.scheduler or None
    if not takes_unknown:
        return find_sampler(name, schedule)
    try:
        find_schedule(schedule)
    except UnknownSampler:
        schedule = AUTOMATIC
    try:
        return find_sampler(name, schedule)
    except UnknownSampler:
        return SAMPLERS[0], find_schedule(schedule)


def _variation(body: GenerationBody) -> Variation | None:
    if not body.subseed_strength:
        return None
    return Variation(subseed=_seed(body.subseed), strength=body.subseed_strength)


def _seed_resize(body: GenerationBody) -> SeedResize | None:
    width, height = body.seed_resize_from_w or 0, body.seed_resize_from_h or 0
    return SeedResize(width=width, height=height) if width > 0 and height > 0 else None


def _image_count(body: GenerationBody, given: Given) -> int:
    sources = len(given.source.pictures) if given.source else 1
    if sources > max(_given(body.batch_size, 1), 1):
        raise InvalidRequest(f"{sources} init_images are more than batch_size.", field="init_images")
    for name, count in (("batch_size", batch_size(body)), ("n_iter", batches(body))):
        if not 1 <= count <= MAX_IMAGES:
            raise InvalidRequest(f"{name} must be between 1 and {MAX_IMAGES}, not {count}.", field=name)
    count = batch_size(body) * batches(body)
    if count > MAX_IMAGES:
        raise InvalidRequest(f"batch_size * n_iter must be at most {MAX_IMAGES}, not {count}.", field="n_iter")
    return count


def _seed(wanted: int | None) -> int:
    return secrets.randbelow(MAX_RANDOM_SEED + 1) if wanted in (None, -1) else wanted


def _floor(side: int) -> int:
    # Latents have one cell per 8 pixels; upstream drops what is left over.
    return side // LATENT_FACTOR * LATENT_FACTOR


def _given(value: _Value | None, default: _Value) -> _Value:
    return default if value is None else value
