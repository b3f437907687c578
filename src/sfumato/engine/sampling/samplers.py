"""Samplers: each is a generator over one picture that asks what the picture is without its noise.

A sampler yields `(x, sigma)`, is sent `denoised` of x's shape, and returns the finished latents. x is float32,
shape (C, h, w), in variance-exploding coordinates, x = x0 + sigma * noise. A sampler sees no network, no batch and
no other picture. Noise comes only from its picture's own stream. The rules are in the modules beside this one; here
is the table of them, by the names of `core.sampling`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sfumato.core.requests import SAMPLER_DEFAULTS, SamplerOptions
from sfumato.engine.sampling.consistency import bounded, sample_lcm
from sfumato.engine.sampling.ddim import sample_ddim, sample_ddim_cfgpp, sample_ddpm, sample_plms
from sfumato.engine.sampling.dpm_solver import sample_dpm_adaptive, sample_dpm_fast
from sfumato.engine.sampling.euler import sample_euler, sample_euler_ancestral
from sfumato.engine.sampling.multistep import (
    sample_deis,
    sample_dpmpp_2m,
    sample_ipndm,
    sample_lms,
    sample_res_multistep,
)
from sfumato.engine.sampling.schedules import NoiseLevels
from sfumato.engine.sampling.sde import (
    sample_dpmpp_2m_sde,
    sample_dpmpp_2m_sde_heun,
    sample_dpmpp_3m_sde,
    sample_dpmpp_sde,
    sample_er_sde,
)
from sfumato.engine.sampling.singlestep import (
    restart_pairs,
    sample_dpm_2,
    sample_dpm_2_ancestral,
    sample_dpmpp_2s,
    sample_dpmpp_2s_ancestral,
    sample_heun,
    sample_restart,
)
from sfumato.engine.sampling.steps import Noise, Steps
from sfumato.engine.sampling.unipc import sample_unipc


def _one_a_step(sigmas: list[float]) -> int:
    return len(sigmas) - 1


def _one_more(sigmas: list[float]) -> int:
    return len(sigmas) - (sigmas[1] == 0)


def _two_a_step(sigmas: list[float]) -> int:
    return sum(2 if sigma_next > 0 else 1 for sigma_next in sigmas[1:])


def _two_a_restart_step(sigmas: list[float]) -> int:
    return sum(2 if sigma_next > 0 else 1 for _, sigma_next in restart_pairs(sigmas))


def _about_forty(sigmas: list[float]) -> int:
    return 40  # measured on pictures; the sampler alone knows


@dataclass(frozen=True)
class Sampler:
    """A rule and how a run of it begins.

    `evaluations` says how many times it asks, given the sigmas; `is_adaptive`: that is a guess.
    `starts_at_unit_variance`: the first latents are noise * sqrt(1 + sigma^2), exact for the variance-preserving
    process, rather than noise * sigma. `wants_unguided`: it is sent `Estimates`. `guidance_divisor` divides the
    guidance scale asked for. `wrap` changes the answers it gets.
    """

    sample: Callable[[Tensor, list[float], SamplerOptions, Noise], Any]
    evaluations: Callable[[list[float]], int] = _one_a_step
    is_adaptive: bool = False
    starts_at_unit_variance: bool = False
    wants_unguided: bool = False
    guidance_divisor: float = 1.0
    wrap: Callable[[Steps, NoiseLevels], Steps] | None = None

    def start(self, noise: Tensor, sigmas: list[float], options: SamplerOptions = SAMPLER_DEFAULTS) -> Tensor:
        """Return the latents a run begins with, from unit noise."""
        sigma = sigmas[0]
        has_unit_variance = self.starts_at_unit_variance or options.starts_at_unit_variance
        return noise * ((1 + sigma**2) ** 0.5 if has_unit_variance else sigma)

    def run(self, x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise, levels: NoiseLevels) -> Steps:
        """Return a run from latents x."""
        steps: Steps = self.sample(x, sigmas, options, noise)
        return self.wrap(steps, levels) if self.wrap else steps


CFGPP_GUIDANCE_DIVISOR = 12.5
"""CFG++ wants scales of 0 to 1 (Chung et al. 2024, Sec. 3.2); this makes the usual 7 an equal of them."""

SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler(sample_dpmpp_2m),
    "DPM++ SDE": Sampler(sample_dpmpp_sde, _two_a_step),
    "DPM++ 2M SDE": Sampler(sample_dpmpp_2m_sde),
    "DPM++ 2M SDE Heun": Sampler(sample_dpmpp_2m_sde_heun),
    "DPM++ 2S a": Sampler(sample_dpmpp_2s_ancestral, _two_a_step),
    "DPM++ 3M SDE": Sampler(sample_dpmpp_3m_sde),
    "Euler a": Sampler(sample_euler_ancestral),
    "Euler": Sampler(sample_euler),
    "LMS": Sampler(sample_lms),
    "Heun": Sampler(sample_heun, _two_a_step),
    "DPM2": Sampler(sample_dpm_2, _two_a_step),
    "DPM2 a": Sampler(sample_dpm_2_ancestral, _two_a_step),
    "DPM fast": Sampler(sample_dpm_fast),
    "DPM adaptive": Sampler(sample_dpm_adaptive, _about_forty, is_adaptive=True),
    "Restart": Sampler(sample_restart, _two_a_restart_step),
    "DDIM": Sampler(sample_ddim, starts_at_unit_variance=True),
    "DDIM CFG++": Sampler(
        sample_ddim_cfgpp,
        starts_at_unit_variance=True,
        wants_unguided=True,
        guidance_divisor=CFGPP_GUIDANCE_DIVISOR,
    ),
    "PLMS": Sampler(sample_plms, _one_more, starts_at_unit_variance=True),
    "UniPC": Sampler(sample_unipc, _one_a_step, starts_at_unit_variance=True),
    "LCM": Sampler(sample_lcm, wrap=bounded),
    "DPM++ 2S": Sampler(sample_dpmpp_2s, _two_a_step),
    "DDPM": Sampler(sample_ddpm, starts_at_unit_variance=True),
    "DEIS": Sampler(sample_deis),
    "IPNDM": Sampler(sample_ipndm),
    "RES multistep": Sampler(sample_res_multistep),
    "ER-SDE": Sampler(sample_er_sde),
}
