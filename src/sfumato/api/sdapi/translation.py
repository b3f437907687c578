"""From a txt2img body to a `GenerationRequest`."""

import secrets
from typing import TypeVar

from sfumato.api.sdapi.fields import Txt2ImgBody
from sfumato.api.sdapi.options import Overrides
from sfumato.core.errors import InvalidRequest
from sfumato.core.requests import LATENT_FACTOR, MAX_IMAGES, GenerationRequest, PromptSyntax, SamplerOptions
from sfumato.core.sampling import find_sampler

MAX_RANDOM_SEED = 4294967293
_Value = TypeVar("_Value")


def to_request(body: Txt2ImgBody, overrides: Overrides) -> GenerationRequest:
    """Translate a body whose unsupported fields were refused already.

    Null means the published default. Raises `InvalidRequest` for counts that make no picture; what the engine cannot
    do is found when the request is submitted.
    """
    sampler, schedule = find_sampler(body.sampler_name or body.sampler_index, body.scheduler or None)
    return GenerationRequest(
        prompt=body.prompt or "",
        negative_prompt=body.negative_prompt or "",
        prompt_syntax=PromptSyntax.A1111,
        model=str(overrides.model.id),
        width=_floor(_given(body.width, 512)),
        height=_floor(_given(body.height, 512)),
        steps=_given(body.steps, 50),
        guidance_scale=_given(body.cfg_scale, 7.0),
        sampler=sampler.name,
        schedule=schedule.label,
        sampler_options=_sampler_options(body),
        seed=_seed(body.seed),
        noise_source=overrides.noise_source,
        image_count=_image_count(body),
    )


def batch_size(body: Txt2ImgBody) -> int:
    """Return how many pictures a batch has."""
    return _given(body.batch_size, 1)


def batches(body: Txt2ImgBody) -> int:
    """Return how many batches were asked for."""
    return _given(body.n_iter, 1)


def _sampler_options(body: Txt2ImgBody) -> SamplerOptions:
    return SamplerOptions(
        eta=body.eta,
        churn=_given(body.s_churn, 0.0),
        churn_min_sigma=_given(body.s_tmin, 0.0),
        churn_max_sigma=body.s_tmax or None,  # 0 means no bound on this wire
        noise_scale=_given(body.s_noise, 1.0),
    )


def _image_count(body: Txt2ImgBody) -> int:
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
