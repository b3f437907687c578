"""A Brownian motion per seed, the same however it is asked about: a virtual Brownian tree.

Li et al. 2020, Alg. 3 (Sec. 4), "virtual Brownian tree": the value at any time follows from the seed by halving the
interval and drawing each midpoint from the Brownian bridge. Seeds of the midpoints and the grid of times are those of
torchsde's `BrownianTree` (0.2.6), which k-diffusion's SDE samplers draw from, so that a seed means the same picture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

_TIME_DIGITS = 6  # times are compared on this grid
_POOL_SIZE = 24


@dataclass
class BrownianTree:
    """W over [low, high] with W(low) = 0; `normal` returns the standard normals of a 32-bit seed."""

    low: float
    high: float
    seed: int
    normal: Callable[[int], Tensor]
    _known: dict[float, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.low, self.high = round(self.low, _TIME_DIGITS), round(self.high, _TIME_DIGITS)
        end = self._normal() * math.sqrt(self.high - self.low)
        self._known = {self.low: torch.zeros_like(end), self.high: end}

    def at(self, time: float) -> Tensor:
        """Return W(time), `time` in [low, high]. Values are kept, as the next step begins where the last ended."""
        time = round(min(max(time, self.low), self.high), _TIME_DIGITS)
        start, end, path, depth = self.low, self.high, 0, 0
        w_start, w_end = self._known[self.low], self._known[self.high]
        while time not in self._known:
            middle = round((start + end) / 2, _TIME_DIGITS)
            # The left half's increment, from the bridge between the ends.
            share = (middle - start) / (end - start)
            deviation = math.sqrt((middle - start) * (end - middle) / (end - start))
            w_middle = w_start + (w_end - w_start) * share + self._normal(path, depth) * deviation
            if time == middle:
                self._known[time] = w_middle
            elif time < middle:
                end, w_end, path = middle, w_middle, 2 * path
            else:
                start, w_start, path = middle, w_middle, 2 * path + 1
            depth += 1
        return self._known[time]

    def step(self, sigma: float, sigma_next: float) -> Tensor:
        """Return the increment from `sigma` down to `sigma_next`, scaled to unit variance."""
        low, high = sorted((sigma, sigma_next))
        sign = 1.0 if sigma < sigma_next else -1.0
        return (self.at(high) - self.at(low)) * (sign / math.sqrt(high - low))

    def _normal(self, *place: int) -> Tensor:
        words = np.random.SeedSequence(self.seed, spawn_key=place, pool_size=_POOL_SIZE)
        return self.normal(int(words.generate_state(1)[0]))
