"""Samplers: each is a generator over one picture that asks what the picture is without its noise.

A sampler yields `(x, sigma)`, is sent `denoised` of x's shape, and returns the finished latents. x is float32,
shape (C, h, w), in variance-exploding coordinates, x = x0 + sigma * noise. A sampler sees no network, no batch and
no other picture. Noise comes only from its picture's own stream.
"""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.noise import Noise

Steps = Generator[tuple[Tensor, float], Tensor, Tensor]


@dataclass(frozen=True)
class Sampler:
    """A rule and how a run of it begins.

    `evaluations` says how many times it asks, given the number of sigmas. `starts_at_unit_variance`: the first
    latents are noise * sqrt(1 + sigma^2), exact for the variance-preserving process, rather than noise * sigma.
    """

    sample: Callable[[Tensor, list[float], SamplerOptions, Noise], Steps]
    evaluations: Callable[[int], int]
    starts_at_unit_variance: bool = False

    def start(self, noise: Tensor, sigmas: list[float]) -> Tensor:
        """Return the latents a run begins with, from unit noise."""
        sigma = sigmas[0]
        return noise * ((1 + sigma**2) ** 0.5 if self.starts_at_unit_variance else sigma)


def ancestral_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Split a step down to `sigma_next` into (sigma to step to, sigma of noise added back).

    Song et al. 2021, Eq. 16, in variance-exploding coordinates; eta 0 adds nothing, 1 is the DDPM posterior.
    """
    if sigma_next == 0 or eta == 0:
        return sigma_next, 0.0
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    sigma_up = min(sigma_next, eta * variance**0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def _churned(x: Tensor, sigma: float, steps: int, options: SamplerOptions, noise: Noise) -> tuple[Tensor, float]:
    """Raise the noise level a little before a step (Karras et al. 2022, Alg. 2, lines 4 to 6)."""
    highest = options.churn_max_sigma
    in_range = options.churn_min_sigma <= sigma and (highest is None or sigma <= highest)
    gamma = min(options.churn / steps, 2**0.5 - 1) if in_range else 0.0
    if gamma == 0:
        return x, sigma
    raised = sigma * (1 + gamma)
    return x + noise() * (options.noise_scale * (raised**2 - sigma**2) ** 0.5), raised


def sample_euler(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Euler's method (Karras et al. 2022, Alg. 2 without the correction)."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = _churned(x, sigma, len(sigmas) - 1, options, noise)
        denoised = yield x, sigma_hat
        x = x + (x - denoised) * ((sigma_next - sigma_hat) / sigma_hat)
    return x


def sample_euler_ancestral(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Euler steps with fresh noise after each: the DDPM posterior at eta 1 (Song et al. 2021, Eq. 12 and 16)."""
    eta = 1.0 if options.eta is None else options.eta
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = x + (x - denoised) * ((sigma_down - sigma) / sigma)
        if sigma_up > 0:
            x = x + noise() * (options.noise_scale * sigma_up)
    return x


def sample_heun(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Heun's second-order method (Karras et al. 2022, Alg. 2); the last step, to sigma 0, is Euler's."""
    for sigma, sigma_next in pairwise(sigmas):
        x, sigma_hat = _churned(x, sigma, len(sigmas) - 1, options, noise)
        denoised = yield x, sigma_hat
        slope = (x - denoised) / sigma_hat
        proposal = x + slope * (sigma_next - sigma_hat)
        if sigma_next == 0:
            x = proposal
            continue
        denoised = yield proposal, sigma_next
        slope_next = (proposal - denoised) / sigma_next
        x = x + (slope + slope_next) * ((sigma_next - sigma_hat) / 2)
    return x


def sample_dpmpp_2m(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DPM-Solver++(2M) (Lu et al. 2022b, Alg. 2), in lambda = -log sigma; first and last steps are first order.

    In variance-exploding coordinates alpha is 1, so sigma_t / sigma_s = exp(-h) multiplies x, and the data
    prediction extrapolated from the last two is weighted by 1 - exp(-h).
    """
    previous: Tensor | None = None
    previous_ratio = 1.0  # sigma / sigma before it
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        ratio = sigma_next / sigma
        estimate = denoised
        if previous is not None and sigma_next > 0:
            weight = math.log(ratio) / (2 * math.log(previous_ratio))  # 1 / (2 r), r = h_previous / h
            estimate = denoised + (denoised - previous) * weight
        x = x * ratio + estimate * (1 - ratio)
        previous, previous_ratio = denoised, ratio
    return x


def sample_ddim(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """DDIM (Song et al. 2021, Eq. 12, sigma from Eq. 16), eta 0 unless asked.

    In variance-exploding coordinates Eq. 12 is Euler's step to `sigma_down` and noise of `sigma_up`. The lowest
    level is not 0 but the first training timestep's, and the latents are handed back in the variance-preserving
    coordinates there, x / sqrt(1 + sigma^2), as the original implementation leaves them.
    """
    eta = options.eta or 0.0
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        sigma_down, sigma_up = ancestral_split(sigma, sigma_next, eta)
        x = denoised + (x - denoised) * (sigma_down / sigma)
        if sigma_up > 0:
            x = x + noise() * (options.noise_scale * sigma_up)
    finished: Tensor = x / (1 + sigmas[-1] ** 2) ** 0.5
    return finished


def _one_per_step(sigma_count: int) -> int:
    return sigma_count - 1


def _two_but_last(sigma_count: int) -> int:
    return 2 * (sigma_count - 1) - 1


SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler(sample_dpmpp_2m, _one_per_step),
    "Euler a": Sampler(sample_euler_ancestral, _one_per_step),
    "Euler": Sampler(sample_euler, _one_per_step),
    "Heun": Sampler(sample_heun, _two_but_last),
    "DDIM": Sampler(sample_ddim, _one_per_step, starts_at_unit_variance=True),
}
