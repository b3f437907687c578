"""An autoencoder that gets by when its number format has too little range, or its device too little memory."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sfumato.core.errors import GenerationFailed
from sfumato.engine.device import is_out_of_memory, release_memory

Note = Callable[[str], None]
"""Takes a sentence for the user about what was done otherwise than asked."""

WIDENED = "The VAE's numbers did not fit its format; it was run again in float32."
TILED = "The device had too little memory to run the VAE on the whole picture; it was run in tiles."

_TILE_CELLS = 64
"""Latent cells along a tile's side; a VAE's own choice may be as large as the picture that did not fit."""


def ignore(_sentence: str) -> None:
    """Take a note and do nothing with it."""


class Autoencoder:
    """A network between pictures (B, 3, H, W) in -1..1 and its latents (B, C, H/8, W/8).

    Output that is not finite is computed again in float32, where the network then stays: Stable Diffusion XL's
    autoencoder overflows in float16. What does not fit into memory at once is computed in overlapping tiles.
    Calls may come from several threads; they take turns.
    """

    def __init__(self, network: Any, *, dtype: torch.dtype, device: torch.device) -> None:
        self.network = network
        self._dtype = dtype
        self._device = device
        self._lock = threading.Lock()

    @torch.inference_mode()
    def decode(self, latents: Tensor, note: Note = ignore) -> Tensor:
        """Return pictures, float32, on the autoencoder's device; raises `GenerationFailed` if they are not finite."""
        network = self.network
        return self._run(
            latents,
            lambda z: network.decode(z, return_dict=False)[0],
            lambda z: network.tiled_decode(z, return_dict=False)[0],
            note,
        )

    @torch.inference_mode()
    def encode(self, pictures: Tensor, note: Note = ignore) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents' distribution (Kingma and Welling 2014, Sec. 3), float32.

        The deviation is zero for autoencoders that have none. Raises `GenerationFailed` if the mean is not finite.
        """
        moments = self._run(
            pictures, lambda x: _moments(self.network.encode(x, return_dict=False)[0]), self._tiled_moments, note
        )
        if moments.shape[1] == self.latent_channels:
            return moments, torch.zeros_like(moments)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, (log_variance.clamp(-30.0, 20.0) / 2).exp()

    @property
    def latent_channels(self) -> int:
        return int(self.network.config.latent_channels)

    def _run(
        self, x: Tensor, whole: Callable[[Tensor], Tensor], tiled: Callable[[Tensor], Tensor], note: Note
    ) -> Tensor:
        with self._lock:
            result = self._within_memory(x, whole, tiled, note)
            if not torch.isfinite(result).all() and self._dtype is not torch.float32:
                self._dtype = torch.float32
                self.network.to(torch.float32)
                note(WIDENED)
                result = self._within_memory(x, whole, tiled, note)
        if not torch.isfinite(result).all():
            raise GenerationFailed("The VAE's output was not finite, not even in float32.", hint="Try another VAE.")
        return result

    def _within_memory(
        self, x: Tensor, whole: Callable[[Tensor], Tensor], tiled: Callable[[Tensor], Tensor], note: Note
    ) -> Tensor:
        x = x.to(self._device, self._dtype)
        if self._device.type == "cpu":
            x = x.to(memory_format=torch.channels_last)
        try:
            return whole(x).float()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the except clause: the error's traceback would keep the failed attempt's tensors alive.
        release_memory()
        note(TILED)
        self._limit_tiles()
        return tiled(x).float()

    def _tiled_moments(self, x: Tensor) -> Tensor:
        self.network.enable_tiling()
        try:
            return _moments(self.network.encode(x, return_dict=False)[0])
        finally:
            self.network.disable_tiling()

    def _limit_tiles(self) -> None:
        side = getattr(self.network, "tile_latent_min_size", 0)
        if side > _TILE_CELLS:
            self.network.tile_sample_min_size = self.network.tile_sample_min_size * _TILE_CELLS // side
            self.network.tile_latent_min_size = _TILE_CELLS


def _moments(encoded: Any) -> Tensor:
    """Return mean and log variance side by side, or the latents of an autoencoder that makes them without chance."""
    moments: Tensor = encoded if isinstance(encoded, Tensor) else encoded.parameters
    return moments
