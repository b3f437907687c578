"""Latent consistency models: sampling in few steps, and the boundary condition of what such a network predicts."""

from itertools import pairwise

import torch
from torch import Tensor

from sfumato.core.requests import SamplerOptions
from sfumato.engine.sampling.schedules import LCM_STRIDE, NoiseLevels
from sfumato.engine.sampling.steps import Noise, Steps

_DATA_DEVIATION = 0.5
_TIMESTEP_SCALING = 10.0


def sample_lcm(x: Tensor, sigmas: list[float], options: SamplerOptions, noise: Noise) -> Steps:
    """Multistep consistency sampling (Luo et al. 2023, Alg. 3): go to the estimate, add noise for the next level."""
    for sigma, sigma_next in pairwise(sigmas):
        denoised = yield x, sigma
        x = denoised + noise() * sigma_next if sigma_next > 0 else denoised
    return x


def bounded(steps: Steps, levels: NoiseLevels) -> Steps:
    """Answer a run's asks as a consistency function does: c_skip x + c_out denoised (Luo et al. 2023, Eq. 9).

    The timestep in c_skip and c_out is the nearest of the 50 that the network was distilled on.
    """
    x, sigma = next(steps)
    while True:
        denoised = yield x, sigma
        timestep = float(levels.timestep(torch.tensor([sigma], dtype=torch.float64))[0])
        nearest = round((timestep + 1) / LCM_STRIDE) * LCM_STRIDE - 1
        scaled = max(nearest, LCM_STRIDE - 1) * _TIMESTEP_SCALING
        c_skip = _DATA_DEVIATION**2 / (scaled**2 + _DATA_DEVIATION**2)
        c_out = scaled / (scaled**2 + _DATA_DEVIATION**2) ** 0.5
        try:
            x, sigma = steps.send(x * c_skip + denoised * c_out)
        except StopIteration as stop:
            result: Tensor = stop.value
            return result
