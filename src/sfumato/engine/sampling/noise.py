"""Random numbers: one stream per picture, so that a picture does not depend on what it is batched with."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.core.requests import NoiseSource

Noise = Callable[[], Tensor]
"""A picture's stream: each call returns the next standard normal draw, float32, shape (C, h, w)."""

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_INCREMENTS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW_32 = np.uint64(0xFFFFFFFF)
_ROUNDS = 10


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Return Philox-4x32-10 of each counter column (Salmon et al. 2011, Sec. 3.3); `counter` is (4, n)."""
    c0, c1, c2, c3 = (row.astype(np.uint64) for row in counter)
    k0, k1 = np.uint32(key[0]), np.uint32(key[1])
    with np.errstate(over="ignore"):
        for _ in range(_ROUNDS):
            left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
            c0, c1, c2, c3 = (
                (right >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
                right & _LOW_32,
                (left >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
                left & _LOW_32,
            )
            k0, k1 = k0 + _KEY_INCREMENTS[0], k1 + _KEY_INCREMENTS[1]
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def philox_normal(seed: int, draw: int, count: int) -> NDArray[np.float32]:
    """Return draw number `draw` of a seed's stream as CUDA's `randn` makes it: `count` standard normals.

    Element j is the first Box-Muller output of Philox at counter (draw, 0, j, 0) and the 64-bit seed as key
    (docs/sdapi.md, "Random numbers").
    """
    counter = np.zeros((4, count), dtype=np.uint32)
    counter[0] = draw
    counter[2] = np.arange(count, dtype=np.uint32)
    bits = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    half_step = 2.0**-33
    u = bits[0].astype(np.float64) * 2.0**-32 + half_step
    v = (bits[1].astype(np.float64) * 2.0**-32 + half_step) * (2.0 * np.pi)
    normal: NDArray[np.float32] = (np.sqrt(-2.0 * np.log(u)) * np.sin(v)).astype(np.float32)
    return normal


def noise_stream(source: NoiseSource, seed: int, shape: tuple[int, ...]) -> Noise:
    """Return the stream of a seed: the first call gives the starting noise, later ones what a sampler adds."""
    if source is NoiseSource.CPU:
        generator = torch.Generator("cpu").manual_seed(seed)
        return lambda: torch.randn(shape, generator=generator)
    draws = iter(range(2**32))
    count = int(np.prod(shape))
    return lambda: torch.from_numpy(philox_normal(seed, next(draws), count).reshape(shape))
