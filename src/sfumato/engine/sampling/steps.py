"""What samplers are made of: the shape of a run, what they draw, and arithmetic several share."""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

from torch import Tensor

from sfumato.core.requests import SamplerOptions

Steps = Generator[tuple[Tensor, float], Tensor, Tensor]
"""A sampler's run: yields `(x, sigma)`, is sent `denoised`, returns the finished latents."""


class Estimates(NamedTuple):
    """The answer to a sampler that tells guidance apart: the guided estimate, and the negative prompt's alone."""

    guided: Tensor
    unguided: Tensor


EstimateSteps = Generator[tuple[Tensor, float], Estimates, Tensor]
"""A run that is sent `Estimates`."""

Increments = Callable[[float, float], Tensor]
"""Unit noise of the step from one sigma down to another: a Brownian motion's increment over its standard deviation."""


class Noise(Protocol):
    """All that one picture draws after its starting noise; a call returns the next standard normal draw."""

    def __call__(self) -> Tensor: ...

    def brownian(self, sigmas: list[float]) -> Increments:
        """Return the picture's Brownian motion over sigma, from the least sigma above 0 to the greatest."""
        ...


Rule = Callable[[Tensor, list[float], SamplerOptions, Noise], Steps]
"""A sampler: starting latents, noise levels, knobs and noise to a run."""


def ancestral_split(sigma: float, sigma_next: float, eta: float) -> tuple[float, float]:
    """Split a step down to `sigma_next` into (sigma to step to, sigma of noise added back).

    Song et al. 2021, Eq. 16, in variance-exploding coordinates; eta 0 adds nothing, 1 is the DDPM posterior.
    """
    if sigma_next == 0 or eta == 0:
        return sigma_next, 0.0
    variance = max(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2, 0.0)
    sigma_up = min(sigma_next, eta * variance**0.5)
    return (sigma_next**2 - sigma_up**2) ** 0.5, sigma_up


def churned(x: Tensor, sigma: float, steps: int, options: SamplerOptions, noise: Noise) -> tuple[Tensor, float]:
    """Raise the noise level a little before a step (Karras et al. 2022, Alg. 2, lines 4 to 6)."""
    highest = options.churn_max_sigma
    in_range = options.churn_min_sigma <= sigma and (highest is None or sigma <= highest)
    gamma = min(options.churn / steps, 2**0.5 - 1) if in_range else 0.0
    if options.churn == 0:
        return x, sigma
    fresh = noise()  # drawn at every step, also outside the range, so that the range does not shift later draws
    raised = sigma * (1 + gamma)
    return x + fresh * (options.noise_scale * (raised**2 - sigma**2) ** 0.5), raised


def exponential_step(x: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """Step to `ratio` times the noise level, exactly for a constant `denoised` (Lu et al. 2022b, Eq. 9, alpha 1)."""
    return x * ratio + denoised * (1 - ratio)


def midpoint(sigma: float, sigma_next: float) -> float:
    """Return the noise level halfway in log sigma."""
    return math.sqrt(sigma * sigma_next)


def ancestral_eta(options: SamplerOptions) -> float:
    """Return eta of a sampler that is fully ancestral unless asked otherwise."""
    return 1.0 if options.eta is None else options.eta
