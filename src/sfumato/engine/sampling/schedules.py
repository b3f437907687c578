"""Sigma schedules: which noise levels a sampler visits.

A schedule returns `steps` noise levels, greatest first, as float64 on the CPU, to which `sigmas_for` adds a final 0;
those that differ say so. Sigmas are those of variance-exploding coordinates,
x = x0 + sigma * noise (Karras et al. 2022, Table 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.errors import InvalidRequest
from sfumato.core.requests import (
    SAMPLER_DEFAULTS,
    SCHEDULE_DEFAULTS,
    SamplerOptions,
    ScheduleOptions,
    UniPCSpacing,
)
from sfumato.core.sampling import AUTOMATIC, SamplerInfo
from sfumato.engine.sampling.beta import beta_quantile

ALIGN_YOUR_STEPS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGN_YOUR_STEPS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
"""Levels for 10 steps, optimised for each family (Sabour et al. 2024, Table 3)."""

LCM_STRIDE = 20
"""Latent consistency models are distilled on every 20th timestep, 50 of 1000 (Luo et al. 2023, Sec. 4.3)."""


@dataclass(frozen=True)
class NoiseLevels:
    """A model's training noise levels: sigma of each integer timestep, ascending, shape (T,), float64.

    `aligned` are the levels of Align Your Steps for the model's family.
    """

    sigmas: Tensor
    aligned: tuple[float, ...] = ALIGN_YOUR_STEPS_SD1

    @classmethod
    def from_betas(cls, betas: Tensor) -> "NoiseLevels":
        """Build from the variance-preserving process's betas (Ho et al. 2020, Eq. 4): sigma^2 = (1 - abar) / abar."""
        alphas_cumprod = torch.cumprod(1.0 - betas.double(), dim=0)
        return cls(((1.0 - alphas_cumprod) / alphas_cumprod).sqrt())

    @classmethod
    def scaled_linear(cls, start: float = 0.00085, end: float = 0.012, count: int = 1000) -> "NoiseLevels":
        """Build Stable Diffusion's levels: betas whose square roots are evenly spaced (Rombach et al. 2022)."""
        return cls.from_betas(torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2)

    @property
    def sigma_min(self) -> float:
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        return float(self.sigmas[-1])

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return sigma at fractional timesteps, interpolating log sigma linearly."""
        last = len(self.sigmas) - 1
        t = timestep.double().clamp(0, last)
        low = t.floor().long()
        high = (low + 1).clamp(max=last)
        log_sigmas = self.sigmas.log()
        return torch.lerp(log_sigmas[low], log_sigmas[high], t - low).exp()

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the fractional timestep of each sigma; the inverse of `sigma`, clamped to the trained range."""
        log_sigmas = self.sigmas.log()
        wanted = sigma.double().clamp(min=self.sigma_min, max=self.sigma_max).log()
        high = torch.searchsorted(log_sigmas, wanted).clamp(1, len(log_sigmas) - 1)
        low = high - 1
        return low + (wanted - log_sigmas[low]) / (log_sigmas[high] - log_sigmas[low])


def _between(start: float, end: float, count: int) -> Tensor:
    return torch.linspace(start, end, count, dtype=torch.float64)


def _range(levels: NoiseLevels, options: ScheduleOptions) -> tuple[float, float]:
    """Return the least and greatest level asked for; the model's own where nothing is asked."""
    low = levels.sigma_min if options.min_sigma is None else options.min_sigma
    high = levels.sigma_max if options.max_sigma is None else options.max_sigma
    if low >= high:
        raise InvalidRequest(f"sigma_min, {low:g}, must be less than sigma_max, {high:g}.", field="sigma_min")
    return low, high


def _time_range(levels: NoiseLevels, options: ScheduleOptions) -> tuple[float, float]:
    low, high = levels.timestep(torch.tensor(_range(levels, options), dtype=torch.float64)).tolist()
    return low, high


def uniform(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space timesteps evenly from the last to the first (Stable Diffusion's default for sigma-space samplers)."""
    return levels.sigma(_between(len(levels.sigmas) - 1, 0, steps))


def karras_sigmas(steps: int, low: float, high: float, rho: float) -> Tensor:
    """Space sigma^(1/rho) evenly (Karras et al. 2022, Eq. 5)."""
    ramp = _between(0, 1, steps)
    sigmas: Tensor = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return sigmas


def karras(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space sigma^(1/rho) evenly, rho 7 unless asked otherwise (Karras et al. 2022, Eq. 5)."""
    return karras_sigmas(steps, *_range(levels, options), options.rho or 7.0)


def polyexponential(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space log sigma by a power of the ramp, rho 1 unless asked otherwise; 1 spaces it evenly."""
    low, high = (math.log(sigma) for sigma in _range(levels, options))
    return (low + _between(1, 0, steps) ** (options.rho or 1.0) * (high - low)).exp()


def exponential(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space log sigma evenly."""
    low, high = (math.log(sigma) for sigma in _range(levels, options))
    return _between(high, low, steps).exp()


def sgm_uniform(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space timesteps evenly and leave out the lowest (the generative-models repository's "trailing" spacing)."""
    low, high = _time_range(levels, options)
    return levels.sigma(_between(high, low, steps + 1)[:-1])


def normal(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space timesteps evenly over the range of sigmas asked for."""
    low, high = _time_range(levels, options)
    return levels.sigma(_between(high, low, steps))


def kl_optimal(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space arctan sigma evenly (Sabour et al. 2024, Thm. 3.1); `steps` + 1 levels, and no 0 follows."""
    low, high = (math.atan(sigma) for sigma in _range(levels, options))
    return _between(high, low, steps + 1).tan()


def align_your_steps(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Interpolate log sigma of the optimised levels (Sabour et al. 2024, Sec. 3.3)."""
    table = torch.tensor(levels.aligned, dtype=torch.float64).log()
    at = _between(0, len(table) - 1, steps)
    low = at.floor().long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], at - low).exp()


def simple(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Take every (T / steps)-th training level, from the last."""
    count = len(levels.sigmas)
    return levels.sigmas[[count - 1 - int(i * count / steps) for i in range(steps)]]


def ddim(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Take every (T // steps)-th training level from the second (Song et al. 2021, Sec. 4.2, linear spacing).

    `steps` that do not divide T may give one level more.
    """
    count = len(levels.sigmas)
    return levels.sigmas[torch.arange(1, count, max(count // steps, 1)).flip(0)]


def beta(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Space sigma by quantiles of a beta distribution (Lee et al. 2024, Sec. 3.2), both parameters 0.6 unless asked."""
    low, high = _range(levels, options)
    return low + beta_quantile(_between(1, 0, steps), options.beta_alpha, options.beta_beta) * (high - low)


def turbo(levels: NoiseLevels, steps: int, options: ScheduleOptions) -> Tensor:
    """Take the last timestep of each of `steps` equal parts, as models distilled to few steps are trained."""
    count = len(levels.sigmas)
    return levels.sigmas[[max(round(i * count / steps - 1), 0) for i in range(steps, 0, -1)]]


Schedule = Callable[[NoiseLevels, int, ScheduleOptions], Tensor]

SCHEDULES: dict[str, Schedule] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": normal,
    "DDIM": ddim,
    "Beta": beta,
    "Turbo": turbo,
}
_END_ABOVE_ZERO = frozenset({"KL Optimal"})


def ddim_timesteps(levels: NoiseLevels, steps: int, options: SamplerOptions) -> Tensor:
    """Return the DDIM family's own levels, without a final 0 (Song et al. 2021, Sec. 4.2, linear spacing).

    Timesteps are every `T // steps`-th of the training ones plus one, so `steps` that do not divide T give one more
    level, and a run makes one step fewer than there are levels: 20 steps call the network 19 times, 30 call it 30.
    A single step goes to the first training level, which the original cannot do.
    """
    count = len(levels.sigmas)
    timesteps = torch.arange(0, count, max(count // steps, 1)).add(1).clamp(max=count - 1)
    if len(timesteps) == 1:
        timesteps = torch.tensor([0, count - 1])
    return levels.sigmas[timesteps.flip(0)]


def unipc_levels(levels: NoiseLevels, steps: int, options: SamplerOptions) -> Tensor:
    """Return UniPC's own levels, without a final 0: one more than the DDIM family's, down to the first training level.

    Spacings are those of Lu et al. 2022a, App. D.
    """
    steps = len(ddim_timesteps(levels, steps, options)) if steps > 1 else 1
    last = len(levels.sigmas) - 1
    if options.unipc.spacing is UniPCSpacing.LOG_SNR:
        return _between(math.log(levels.sigma_max), math.log(levels.sigma_min), steps + 1).exp()
    if options.unipc.spacing is UniPCSpacing.TIME_QUADRATIC:
        return levels.sigma(_between((last + 1) ** 0.5, 1, steps + 1) ** 2 - 1)
    return levels.sigma(_between(last, 0, steps + 1))


def lcm_levels(levels: NoiseLevels, steps: int, options: SamplerOptions) -> Tensor:
    """Return a consistency model's own levels and a final 0: evenly over the timesteps it was distilled on."""
    distilled = levels.sigmas[LCM_STRIDE - 1 :: LCM_STRIDE]
    subset = NoiseLevels(distilled)
    return _with_zero(subset.sigma(_between(len(distilled) - 1, 0, steps)))


OWN_LEVELS: dict[str, Callable[[NoiseLevels, int, SamplerOptions], Tensor]] = {
    "DDIM": ddim_timesteps,
    "DDPM": ddim_timesteps,
    "DDIM CFG++": ddim_timesteps,
    "PLMS": ddim_timesteps,
    "UniPC": unipc_levels,
    "LCM": lcm_levels,
}
"""What "Automatic" means for samplers that have levels of their own."""


def _with_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas.double(), torch.zeros(1, dtype=torch.float64)])


def sigmas_for(
    sampler: SamplerInfo,
    schedule_label: str,
    levels: NoiseLevels,
    steps: int,
    options: ScheduleOptions = SCHEDULE_DEFAULTS,
    sampler_options: SamplerOptions = SAMPLER_DEFAULTS,
) -> Tensor:
    """Return the noise levels that `sampler` visits under a schedule's label, "Automatic" included.

    Raises `InvalidRequest` when the options leave no range.
    """
    if schedule_label == AUTOMATIC and sampler.has_own_levels:
        return OWN_LEVELS[sampler.name](levels, steps, sampler_options)
    if schedule_label == AUTOMATIC:
        schedule_label = sampler.default_schedule or "Uniform"
    discards = sampler.discards_penultimate or options.discards_penultimate
    sigmas = SCHEDULES[schedule_label](levels, steps + discards, options)
    if schedule_label not in _END_ABOVE_ZERO:
        sigmas = _with_zero(sigmas)
    return torch.cat([sigmas[:-2], sigmas[-1:]]) if discards else sigmas
