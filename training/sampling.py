"""A plain sampler of the built-in model, for looking at it while it trains: diffusers' DDIM with guidance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray

from training.common import autocast, device
from training.text import TextEncoder, context


class Sampler:
    """The exported model in a folder of diffusers layout, ready to draw."""

    def __init__(self, folder: Path) -> None:
        self.where = device()
        self.vae = AutoencoderDC.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(self.where).eval()
        self.unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
        self.unet = self.unet.to(self.where).to(memory_format=torch.channels_last).eval()
        self.scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
        self.text = TextEncoder.load(folder / "text_encoder", folder / "tokenizer", self.where)

    @torch.no_grad()
    def draw(
        self,
        prompts: list[str],
        *,
        steps: int = 20,
        guidance: float = 5.0,
        seed: int = 0,
        width: int = 256,
        height: int = 256,
    ) -> list[NDArray[np.uint8]]:
        """Return one picture (H, W, 3) a prompt; the n-th has the noise of `seed + n`."""
        states = context(self.text.states(prompts + [""] * len(prompts)))
        shape = (1, self.unet.config.in_channels, height // 8, width // 8)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed + n)) for n in range(len(prompts))]
        latents = torch.cat(noise).to(self.where, memory_format=torch.channels_last)
        self.scheduler.set_timesteps(steps)
        with autocast(self.where):
            for timestep in self.scheduler.timesteps:
                both = self.unet(torch.cat([latents, latents]), timestep, encoder_hidden_states=states).sample.float()
                asked, free = both.chunk(2)
                velocity = free + guidance * (asked - free)
                latents = self.scheduler.step(velocity, timestep, latents).prev_sample
            pictures = self.vae.decode(latents).sample
        pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return list(pixels)
