"""Sigma schedules: which noise levels a sampler visits.

A schedule returns `steps` noise levels, greatest first, and a final 0, as float64 on the CPU, shape (steps + 1,);
the timestep schedule of the DDIM family says where it differs. Sigmas are those of variance-exploding coordinates,
x = x0 + sigma * noise (Karras et al. 2022, Table 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.sampling import AUTOMATIC, SamplerInfo


@dataclass(frozen=True)
class NoiseLevels:
    """A model's training noise levels: sigma of each integer timestep, ascending, shape (T,), float64."""

    sigmas: Tensor

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


def _with_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas.double(), torch.zeros(1, dtype=torch.float64)])


def uniform(levels: NoiseLevels, steps: int) -> Tensor:
    """Space timesteps evenly from the last to the first (Stable Diffusion's default for sigma-space samplers)."""
    return _with_zero(levels.sigma(torch.linspace(len(levels.sigmas) - 1, 0, steps, dtype=torch.float64)))


def karras(levels: NoiseLevels, steps: int, rho: float = 7.0) -> Tensor:
    """Space sigma^(1/rho) evenly (Karras et al. 2022, Eq. 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    first, last = levels.sigma_max ** (1 / rho), levels.sigma_min ** (1 / rho)
    return _with_zero((first + ramp * (last - first)) ** rho)


def exponential(levels: NoiseLevels, steps: int) -> Tensor:
    """Space log sigma evenly."""
    first, last = math.log(levels.sigma_max), math.log(levels.sigma_min)
    return _with_zero(torch.linspace(first, last, steps, dtype=torch.float64).exp())


def sgm_uniform(levels: NoiseLevels, steps: int) -> Tensor:
    """Space timesteps evenly and leave out the lowest (the generative-models repository's "trailing" spacing)."""
    return _with_zero(levels.sigma(torch.linspace(len(levels.sigmas) - 1, 0, steps + 1, dtype=torch.float64)[:-1]))


def ddim_timesteps(levels: NoiseLevels, steps: int) -> Tensor:
    """Return the DDIM family's own levels, without a final 0 (Song et al. 2021, Sec. 4.2, linear spacing).

    Timesteps are every `T // steps`-th of the training ones plus one, so `steps` that do not divide T give one more
    level, and a run makes one step fewer than there are levels: 20 steps call the network 19 times, 30 call it 30.
    """
    count = len(levels.sigmas)
    timesteps = torch.arange(0, count, max(count // steps, 1)).add(1).clamp(max=count - 1)
    return levels.sigmas[timesteps.flip(0)]


Schedule = Callable[[NoiseLevels, int], Tensor]

SCHEDULES: dict[str, Schedule] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "SGM Uniform": sgm_uniform,
}


def sigmas_for(sampler: SamplerInfo, schedule_label: str, levels: NoiseLevels, steps: int) -> Tensor:
    """Return the noise levels that `sampler` visits under a schedule's label, "Automatic" included."""
    if sampler.ignores_schedule:
        return ddim_timesteps(levels, steps)
    if schedule_label == AUTOMATIC:
        schedule_label = sampler.default_schedule or "Uniform"
    return SCHEDULES[schedule_label](levels, steps)
