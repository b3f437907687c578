"""What every family's loader returns: the three networks of a latent diffusion model behind plain calls."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from sfumato.engine.conditioning import Conditioning
from sfumato.engine.families.autoencoder import Autoencoder, Note, ignore
from sfumato.engine.prompt.encode import PromptEncoder
from sfumato.engine.sampling.schedules import NoiseLevels


class Prediction(StrEnum):
    """What a denoiser's network was trained to output."""

    EPSILON = "epsilon"
    VELOCITY = "v_prediction"


class Denoiser:
    """A noise-predicting network, read as a function from noisy latents to clean ones.

    `network(x, timestep, conditioning)` takes variance-preserving latents (B, C, h, w), timesteps (B,) and stacked
    conditionings, each row its own.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Conditioning], Tensor],
        *,
        levels: NoiseLevels,
        prediction: Prediction,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.levels = levels
        self._network = network
        self._prediction = prediction
        self._dtype = dtype
        self._device = device

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the network's estimate of x0, float32, for x = x0 + sigma * noise.

        x: (B, C, h, w) float32, sigma: (B,) float64, B stacked conditionings. The preconditioning is that of
        Karras et al. 2022, Table 1 (VP), and for velocity that of Salimans and Ho 2022, Appendix D.
        """
        timestep = self.levels.timestep(sigma)
        s = sigma.to(self._device, torch.float32).view(-1, 1, 1, 1)
        scale = (s * s + 1).rsqrt()
        x = x.to(self._device)
        rows = (x * scale).to(self._dtype)
        if self._device.type == "cpu":
            rows = rows.to(memory_format=torch.channels_last)
        told = conditioning.to(self._device, self._dtype)
        output = self._network(rows, timestep.to(self._device, torch.float32), told).float()
        if self._prediction is Prediction.VELOCITY:
            return x * scale * scale - output * (s * scale)
        return x - output * s


class LatentCodec:
    """An autoencoder between pictures and latents of unit variance."""

    def __init__(self, autoencoder: Autoencoder, *, scaling_factor: float, shift_factor: float = 0.0) -> None:
        self.autoencoder = autoencoder
        self._scaling_factor = scaling_factor
        self._shift_factor = shift_factor

    @torch.inference_mode()
    def decode(self, latents: Tensor, note: Note = ignore) -> Tensor:
        """Return pictures (B, H, W, 3) uint8 RGB on the CPU, for latents (B, C, H/8, W/8).

        `note` is told when it took float32 or tiles. Raises `GenerationFailed` when the output is not finite.
        """
        pixels = self.autoencoder.decode(latents / self._scaling_factor + self._shift_factor, note)
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous()

    def is_compatible(self, other: "LatentCodec") -> bool:
        """Say whether another autoencoder reads the latents of this one."""
        return self is other or (
            self.autoencoder.latent_channels == other.autoencoder.latent_channels
            and self._scaling_factor == other._scaling_factor
            and self._shift_factor == other._shift_factor
        )

    @torch.inference_mode()
    def encode(self, pixels: Tensor, noise: Tensor | None = None, note: Note = ignore) -> Tensor:
        """Return latents (B, C, H/8, W/8), float32 on the CPU, for pictures (B, H, W, 3) of values 0 to 255.

        Without noise they are the mean of the autoencoder's distribution; with standard normal noise of the latents'
        shape, a sample of it. Raises as `decode`.
        """
        mean, deviation = self.autoencoder.encode(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, note)
        latents = mean if noise is None else mean + deviation * noise.to(mean.device)
        return ((latents - self._shift_factor) * self._scaling_factor).cpu()


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in memory, ready to make pictures."""

    name: str
    denoiser: Denoiser
    prompts: PromptEncoder
    codec: LatentCodec
    latent_channels: int
    size_bytes: int


def size_bytes(*modules: nn.Module) -> int:
    """Return the memory that the modules' weights take."""
    return sum(t.numel() * t.element_size() for m in modules for t in (*m.parameters(), *m.buffers()))
