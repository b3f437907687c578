"""What every family's loader returns: the three networks of a latent diffusion model behind plain calls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from sfumato.engine.conditioning import CHANNELS, Conditioning
from sfumato.engine.families.autoencoder import Autoencoder, Note, ignore
from sfumato.engine.families.canvas import Canvas
from sfumato.engine.prompt.encode import PromptEncoder
from sfumato.engine.sampling.schedules import NoiseLevels

_HALF_GRAY = 127.5
_MASKED = 0.5


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
        self.prediction = prediction
        self._dtype = dtype
        self._device = device

    @torch.inference_mode()
    def denoise(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the network's estimate of x0, float32, for x = x0 + sigma * noise.

        x: (B, C, h, w) float32, sigma: (B,) float64, B stacked conditionings. The preconditioning is that of
        Karras et al. 2022, Table 1 (VP), and for velocity that of Salimans and Ho 2022, Appendix D.
        """
        output = self.output(x, sigma, conditioning)
        x, s = x.to(self._device), sigma.to(self._device, torch.float32).view(-1, 1, 1, 1)
        if self.prediction is Prediction.VELOCITY:
            scale = (s * s + 1).rsqrt()
            return x * scale * scale - output * (s * scale)
        return x - output * s

    @torch.inference_mode()
    def output(self, x: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
        """Return what the network itself says, float32, for the arguments of `denoise`."""
        timestep = self.levels.timestep(sigma)
        s = sigma.to(self._device, torch.float32).view(-1, 1, 1, 1)
        told = conditioning.to(self._device, self._dtype)
        rows = (x.to(self._device) * (s * s + 1).rsqrt()).to(self._dtype)
        if (channels := told.extras.get(CHANNELS)) is not None:
            rows = torch.cat([rows, channels], dim=1)
        if self._device.type == "cpu":
            rows = rows.to(memory_format=torch.channels_last)
        return self._network(rows, timestep.to(self._device, torch.float32), told).float()


class LatentCodec:
    """An autoencoder between pictures and latents of unit variance."""

    def __init__(self, autoencoder: Autoencoder, *, scaling_factor: float, shift_factor: float = 0.0) -> None:
        self.autoencoder = autoencoder
        self.scaling_factor = scaling_factor
        self._shift_factor = shift_factor

    def through(self, autoencoder: Autoencoder) -> "LatentCodec":
        """Return a codec for the same latents that uses another autoencoder."""
        return LatentCodec(autoencoder, scaling_factor=self.scaling_factor, shift_factor=self._shift_factor)

    @torch.inference_mode()
    def decode(self, latents: Tensor, note: Note = ignore) -> Tensor:
        """Return pictures (B, H, W, 3) uint8 RGB on the CPU, for latents (B, C, H/8, W/8).

        `note` is told when it took float32 or tiles. Raises `GenerationFailed` when the output is not finite.
        """
        pixels = self.autoencoder.decode(latents / self.scaling_factor + self._shift_factor, note)
        return ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous()

    def is_compatible(self, other: "LatentCodec") -> bool:
        """Say whether another autoencoder reads the latents of this one."""
        return self is other or (
            self.autoencoder.latent_channels == other.autoencoder.latent_channels
            and self.scaling_factor == other.scaling_factor
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
        return ((latents - self._shift_factor) * self.scaling_factor).cpu()


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in memory, ready to make pictures.

    `networks` are the denoiser and the text encoders under diffusers' names, for adapters that change their layers.
    `time_ids`, `guidance_width`: see `Canvas`. `takes_picture`: an inpainting network, which is told mask and picture
    beside the latents.
    """

    name: str
    denoiser: Denoiser
    prompts: PromptEncoder
    codec: LatentCodec
    latent_channels: int
    size_bytes: int
    networks: Mapping[str, nn.Module]
    time_ids: int = 0
    takes_picture: bool = False
    guidance_width: int = 0

    def canvas(self, width: int, height: int, *, guidance_scale: float = 1.0, channels: Tensor | None = None) -> Canvas:
        """Return what the network is told of a picture of this size in pixels.

        A network that takes a picture beside the latents gets `channels`, or is asked to paint all of it.
        """
        if self.takes_picture and channels is None:
            channels = self.picture_channels(torch.full((height, width, 3), _HALF_GRAY), torch.ones(height, width))
        return Canvas(
            width=width,
            height=height,
            time_ids=self.time_ids,
            channels=channels,
            guidance_scale=guidance_scale,
            guidance_width=self.guidance_width,
        )

    def picture_channels(self, picture: Tensor, mask: Tensor, note: Note = ignore) -> Tensor:
        """Return an inpainting network's channels (1 + C, H/8, W/8): the mask, and the picture but for what it hides.

        picture: (H, W, 3) of values 0 to 255, mask: (H, W), 1 where it is to be painted anew. What is hidden counts as
        half gray, as in the networks' training (Rombach et al. 2022, Sec. 4.5).
        """
        cleared = torch.where(mask.unsqueeze(-1) >= _MASKED, _HALF_GRAY, picture.float())
        latents = self.codec.encode(cleared.unsqueeze(0), note=note)[0]
        small = nn.functional.interpolate(mask[None, None].float(), size=latents.shape[-2:])[0]
        return torch.cat([small, latents])


def size_bytes(*modules: nn.Module) -> int:
    """Return the memory that the modules' weights take."""
    return sum(t.numel() * t.element_size() for m in modules for t in (*m.parameters(), *m.buffers()))
