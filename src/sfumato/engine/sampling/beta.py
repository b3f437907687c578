"""Quantiles of the beta distribution, which torch has not."""

import math

import torch
from torch import Tensor

_TERMS = 90
_HALVINGS = 60


def _lower(x: Tensor, a: float, b: float) -> Tensor:
    """Return the regularised incomplete beta function I_x(a, b) for x <= 1/2 by its series (DLMF 8.17.7)."""
    term = x.pow(a) / a
    total = term.clone()
    for n in range(1, _TERMS):
        term = term * x * ((n - b) * (a + n - 1) / (n * (a + n)))
        total = total + term
    return total * math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))


def beta_cdf(x: Tensor, a: float, b: float) -> Tensor:
    """Return I_x(a, b) for x in [0, 1], float64; the upper half by symmetry (DLMF 8.17.4)."""
    return torch.where(x <= 0.5, _lower(x.clamp(max=0.5), a, b), 1 - _lower((1 - x).clamp(max=0.5), b, a))


def beta_quantile(probability: Tensor, a: float, b: float) -> Tensor:
    """Return x with I_x(a, b) = probability, float64, by halving; 0 and 1 are their own quantiles."""
    low, high = torch.zeros_like(probability), torch.ones_like(probability)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_below = beta_cdf(middle, a, b) < probability
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    found = torch.where(probability >= 1, 1.0, (low + high) / 2)
    return torch.where(probability <= 0, 0.0, found)
