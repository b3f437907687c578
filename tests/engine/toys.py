"""Denoisers with a known answer, and a driver that answers a sampler's asks."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.core.sampling import find_sampler
from sfumato.engine.sampling.noise import Noise
from sfumato.engine.sampling.samplers import SAMPLERS, Steps

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


def run(steps: Steps, denoise: Callable[[Tensor, float], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Answer every ask and return the sampler's result and the latents it asked about."""
    asked = []
    try:
        x, sigma = next(steps)
        while True:
            asked.append(x)
            x, sigma = steps.send(denoise(x, sigma))
    except StopIteration as stop:
        return stop.value, asked


def silence(shape: tuple[int, ...] = (1, 2, 2)) -> Noise:
    """Return a noise stream of zeros."""
    return lambda: torch.zeros(shape)


def sample(
    name: str, x: Tensor, sigmas: list[float], denoise: Callable[[Tensor, float], Tensor], **options: float
) -> Tensor:
    """Run a sampler by name from latents x, without noise."""
    sampler = SAMPLERS[find_sampler(name)[0].name]
    steps = sampler.sample(x, sigmas, SamplerOptions(**options), silence(tuple(x.shape)))
    return run(steps, denoise)[0]
