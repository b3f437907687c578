"""The option keys that steer samplers, schedules and noise, as `override_settings` of a request may set them.

Where a request has a field for the same thing, a field that is null takes the option; for S_churn and its kin an option
that differs from its default beats the field, as upstream.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato.api.sdapi.fields import GenerationBody
from sfumato.core.errors import InvalidRequest
from sfumato.core.requests import (
    GuidanceSkips,
    SamplerOptions,
    ScheduleOptions,
    UniPCOptions,
    UniPCSpacing,
    UniPCVariant,
)
from sfumato.core.sampling import DDIM_ETA, SamplerInfo

_Value = TypeVar("_Value")


class SamplingKeys(BaseModel):
    """The keys, with upstream's defaults; 0 means the model's own for sigmas and the schedule's own for rho."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    eta_ancestral: float = 1.0
    eta_ddim: float = 0.0
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    s_min_uncond: float = 0.0
    s_min_uncond_all: bool = False
    skip_early_cond: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = 0.0
    rho: float = 0.0
    eta_noise_seed_delta: int = 0
    always_discard_next_to_last_sigma: bool = False
    sgm_noise_multiplier: bool = False
    beta_dist_alpha: float = 0.6
    beta_dist_beta: float = 0.6
    uni_pc_variant: UniPCVariant = UniPCVariant.BH1
    uni_pc_skip_type: UniPCSpacing = UniPCSpacing.TIME_UNIFORM
    uni_pc_order: int = 3
    uni_pc_lower_order_final: bool = True
    img2img_fix_steps: bool = False
    initial_noise_multiplier: float = 1.0
    img2img_extra_noise: float = 0.0


DEFAULTS = SamplingKeys()


def read_sampling_keys(wanted: Mapping[str, Any]) -> SamplingKeys:
    """Read the keys out of an `override_settings`; null is the default. Raises `InvalidRequest`."""
    given = {key: wanted[key] for key in SamplingKeys.model_fields if wanted.get(key) is not None}
    try:
        return SamplingKeys.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0])
        raise InvalidRequest(f"{field}: {first['msg']}.", field=field) from None


def sampler_options(body: GenerationBody, keys: SamplingKeys, sampler: SamplerInfo) -> SamplerOptions:
    """Return a sampler's knobs from the request's fields and options."""
    return SamplerOptions(
        eta=_eta(body, keys, sampler),
        churn=_option_first(keys.s_churn, DEFAULTS.s_churn, body.s_churn),
        churn_min_sigma=_option_first(keys.s_tmin, DEFAULTS.s_tmin, body.s_tmin),
        churn_max_sigma=_option_first(keys.s_tmax, DEFAULTS.s_tmax, body.s_tmax) or None,  # 0 means no bound here
        noise_scale=_option_first(keys.s_noise, DEFAULTS.s_noise, body.s_noise),
        starts_at_unit_variance=keys.sgm_noise_multiplier,
        unipc=UniPCOptions(
            variant=keys.uni_pc_variant,
            spacing=keys.uni_pc_skip_type,
            order=keys.uni_pc_order,
            lowers_order_at_end=keys.uni_pc_lower_order_final,
        ),
    )


def schedule_options(keys: SamplingKeys) -> ScheduleOptions:
    """Return a schedule's knobs."""
    return ScheduleOptions(
        min_sigma=keys.sigma_min or None,
        max_sigma=keys.sigma_max or None,
        rho=keys.rho or None,
        beta_alpha=keys.beta_dist_alpha,
        beta_beta=keys.beta_dist_beta,
        discards_penultimate=keys.always_discard_next_to_last_sigma,
    )


def guidance_skips(body: GenerationBody, keys: SamplingKeys) -> GuidanceSkips:
    """Return where the negative prompt is left out."""
    return GuidanceSkips(
        below_sigma=keys.s_min_uncond if body.s_min_uncond is None else body.s_min_uncond,
        at_every_evaluation=keys.s_min_uncond_all,
        until_fraction=keys.skip_early_cond,
    )


def _eta(body: GenerationBody, keys: SamplingKeys, sampler: SamplerInfo) -> float | None:
    if body.eta is not None or sampler.eta is None:
        return body.eta
    option = keys.eta_ddim if sampler.eta is DDIM_ETA else keys.eta_ancestral
    return None if option == sampler.eta.default else option


def _option_first(option: _Value, default: _Value, field: _Value | None) -> _Value:
    return option if field is None or option != default else field
