"""A family's training noise levels, from a diffusers scheduler's configuration."""

from typing import Any

import torch
from torch import Tensor

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.sampling.schedules import NoiseLevels

_LEAST_SIGNAL = 2.0**-24
"""The last level's signal after rescaling, instead of the paper's 0, at which sigma would be infinite."""


def noise_levels(scheduler: dict[str, Any]) -> NoiseLevels:
    """Return the levels; raises `ModelLoadFailed` for kinds that are not known."""
    signal = torch.cumprod(1.0 - _betas(scheduler), dim=0)
    if scheduler.get("rescale_betas_zero_snr"):
        signal = rescaled_to_zero_terminal(signal)
    return NoiseLevels(((1.0 - signal) / signal).sqrt())


def rescaled_to_zero_terminal(signal: Tensor) -> Tensor:
    """Shift and scale the square root of the cumulative signal so that it ends at 0 (Lin et al. 2023, Alg. 1)."""
    root = signal.sqrt()
    rescaled = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    rescaled[-1] = _LEAST_SIGNAL
    return rescaled


def _betas(scheduler: dict[str, Any]) -> Tensor:
    if trained := scheduler.get("trained_betas"):
        return torch.tensor(trained, dtype=torch.float64)
    start, end = float(scheduler.get("beta_start", 0.00085)), float(scheduler.get("beta_end", 0.012))
    count = int(scheduler.get("num_train_timesteps", 1000))
    kind = scheduler.get("beta_schedule", "scaled_linear")
    if kind == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2
    if kind == "linear":
        return torch.linspace(start, end, count, dtype=torch.float64)
    raise ModelLoadFailed(f"Noise schedules of kind {kind!r} are not known.")
