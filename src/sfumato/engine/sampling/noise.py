"""Random numbers: one stream per picture, so that a picture does not depend on what it is batched with."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.core.requests import LATENT_FACTOR, GenerationRequest, NoiseSource
from sfumato.engine.sampling.brownian import BrownianTree
from sfumato.engine.sampling.steps import Increments

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_INCREMENTS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW_32 = np.uint64(0xFFFFFFFF)
_ROUNDS = 10
_NEARLY_PARALLEL = 0.9995
_NOT_STRAIGHT = 1 - 1e-6  # columns of one cell are parallel or opposite


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


def noise_stream(source: NoiseSource, seed: int, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    """Return the stream of a seed: each call returns the next standard normal draw, float32, of `shape`."""
    if source is NoiseSource.CPU:
        generator = torch.Generator("cpu").manual_seed(seed)
        return lambda: torch.randn(shape, generator=generator)
    draws = iter(range(2**32))
    count = int(np.prod(shape))
    return lambda: torch.from_numpy(philox_normal(seed, next(draws), count).reshape(shape))


def slerp(noise: Tensor, other: Tensor, strength: float) -> Tensor:
    """Turn `noise` towards `other` along the great circle (Shoemake 1985), column by column of each channel.

    Angles are taken over the height, axis 1 of (C, h, w), as in AUTOMATIC1111; noises that nearly agree are mixed
    linearly, there with the weights the other way round.
    """
    unit, other_unit = (x / x.norm(dim=1, keepdim=True) for x in (noise, other))
    cosine = (unit * other_unit).sum(dim=1, keepdim=True)
    if cosine.mean() > _NEARLY_PARALLEL:
        return noise * strength + other * (1 - strength)
    angle = cosine.clamp(-_NOT_STRAIGHT, _NOT_STRAIGHT).acos()
    turned: Tensor = (((1 - strength) * angle).sin() * noise + (strength * angle).sin() * other) / angle.sin()
    return turned


def paste_centrally(small: Tensor, canvas: Tensor) -> Tensor:
    """Return `canvas` with `small` over its middle; what does not fit is cut off evenly (both (C, h, w))."""
    merged = canvas.clone()
    (to_y, from_y), (to_x, from_x) = (_overlap(small.shape[axis], canvas.shape[axis]) for axis in (1, 2))
    merged[:, to_y, to_x] = small[:, from_y, from_x]
    return merged


def _overlap(small: int, canvas: int) -> tuple[slice, slice]:
    """Return where `small` cells lie among `canvas` and which of them do."""
    offset = (canvas - small) // 2
    if offset >= 0:
        return slice(offset, offset + small), slice(0, small)
    shown = small + 2 * offset
    return slice(0, shown), slice(-offset, -offset + shown)


class PictureNoise:
    """Everything random about one picture: its starting noise, what samplers draw later, its Brownian motion.

    `start` is the first draw, shape (C, h, w), with the request's variation and seed resize. Pictures share nothing,
    so a picture is the same in any batch.
    """

    def __init__(self, request: GenerationRequest, index: int, shape: tuple[int, int, int]) -> None:
        self._source, self._seed, self._shape = request.noise_source, request.seed_of(index), shape
        self._draw = noise_stream(self._source, self._seed, shape)
        self.start = self._starting_noise(request, index)
        if request.eta_seed_delta:
            self._draw = noise_stream(self._source, self._seed + request.eta_seed_delta, shape)

    def __call__(self) -> Tensor:
        """Return the next draw."""
        return self._draw()

    def brownian(self, sigmas: list[float]) -> Increments:
        """Return the picture's Brownian motion over sigma, from the least sigma above 0 to the greatest."""
        above_zero = [sigma for sigma in sigmas if sigma > 0]
        return BrownianTree(min(above_zero), max(above_zero), self._seed, self._first_draw).step

    def _first_draw(self, seed: int) -> Tensor:
        return noise_stream(self._source, seed, self._shape)()

    def _starting_noise(self, request: GenerationRequest, index: int) -> Tensor:
        shape = self._shape
        if request.seed_resize is not None:
            size = request.seed_resize
            shape = (shape[0], size.height // LATENT_FACTOR, size.width // LATENT_FACTOR)
        full = self._draw()
        noise = full if shape == self._shape else noise_stream(self._source, self._seed, shape)()
        if request.variation is not None:
            other = noise_stream(self._source, request.variation.subseed + index, shape)()
            noise = slerp(noise, other, request.variation.strength)
        return noise if shape == self._shape else paste_centrally(noise, full)
