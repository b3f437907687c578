"""Denoisers with a known answer, and a driver that answers a sampler's asks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.core.sampling import find_sampler
from sfumato.engine.sampling.samplers import SAMPLERS
from sfumato.engine.sampling.steps import Estimates, Increments

MEAN, SPREAD = 0.7, 0.5


def gaussian_denoiser(x: Tensor, sigma: float) -> Tensor:
    """Return E[x0 | x] for x0 ~ N(MEAN, SPREAD^2), which is linear in x."""
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def gaussian_flow(x: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Return where the probability flow ODE takes x from sigma to sigma_next for that data: its exact solution."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + sigma_next**2) / (SPREAD**2 + sigma**2))


def mixture_denoiser(x: Tensor, sigma: float) -> Tensor:
    """Return E[x0 | x] for x0 drawn evenly from {-1, +1}: tanh, which is not linear."""
    return torch.tanh(x / sigma**2)


def wide_mixture_denoiser(x: Tensor, sigma: float) -> Tensor:
    """Return E[x0 | x] for x0 drawn evenly from N(-1, SPREAD^2) and N(1, SPREAD^2)."""
    variance = SPREAD**2 + sigma**2
    mean = torch.tanh(x / variance)
    return mean + SPREAD**2 / variance * (x - mean)


def run(steps: Any, denoise: Callable[[Tensor, float], Any]) -> tuple[Tensor, list[Tensor]]:
    """Answer every ask and return the sampler's result and the latents it asked about."""
    asked = []
    try:
        x, sigma = next(steps)
        while True:
            asked.append(x)
            x, sigma = steps.send(denoise(x, sigma))
    except StopIteration as stop:
        return stop.value, asked


@dataclass
class Silence:
    """A picture's noise that is all zeros."""

    shape: tuple[int, ...] = (1, 2, 2)

    def __call__(self) -> Tensor:
        return torch.zeros(self.shape)

    def brownian(self, sigmas: list[float]) -> Increments:
        return lambda sigma, sigma_next: torch.zeros(self.shape)


def sample(
    name: str, x: Tensor, sigmas: list[float], denoise: Callable[[Tensor, float], Tensor], **options: Any
) -> Tensor:
    """Run a sampler by name from latents x, without noise; guided and unguided estimates are the same."""
    sampler = SAMPLERS[find_sampler(name)[0].name]
    steps = sampler.sample(x, sigmas, SamplerOptions(**options), Silence(tuple(x.shape)))
    return run(steps, both(denoise) if sampler.wants_unguided else denoise)[0]


def both(denoise: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Estimates]:
    """Return the denoiser as a sampler that tells guidance apart wants it."""
    return lambda x, sigma: Estimates(denoise(x, sigma), denoise(x, sigma))
