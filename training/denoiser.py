"""Train the denoiser: a small Stable-Diffusion-shaped UNet on cached latents of scenes composed as it goes.

First its inner part learns on pictures of half the side, then the whole on those of the full size.

Velocity prediction (Salimans & Ho 2022) on Stable Diffusion's noise schedule. Workers compose new scenes all the time;
they are encoded once and kept in a ring; each is used about `REUSE` times. A tenth of the captions is dropped for
guidance (Ho & Salimans 2022). The weights that count are the moving average.
"""

from __future__ import annotations

import argparse
import copy
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.autoencoder import LATENT_CHANNELS, to_tensor
from training.common import DEFAULT_WORK, Budget, autocast, device, learning_rate, save_atomically
from training.growing import grow
from training.optimiser import Optimiser
from training.scenes import Composer
from training.sprites import SpriteStore
from training.text import WIDTH, TextEncoder, context, packaged_encoder
from training.things import COMMON, THINGS, Thing

logger = logging.getLogger(__name__)

SMALL_SHARE = 0.55  # of the minutes, the first: pictures of half the side, which teach shapes at several times the pace
SMALL_SIZES = {(128, 128): 1.0}
SIZES = {(256, 256): 0.94, (320, 320): 0.01, (384, 384): 0.01, (512, 512): 0.02, (256, 384): 0.01, (384, 256): 0.01}
REUSE = 6
RING_LENGTH = 16_384
DROPPED_SHARE = 0.1
PURE_NOISE_FROM = 930
LATE_POWER = 0.8
EMA_DECAY = 0.998
CHECKPOINT_SECONDS = 180.0
TIMESTEPS = 1000


def build() -> UNet2DConditionModel:
    """Make an untrained denoiser of four levels. Attention only at the two inner ones.

    The prompt also steers every block as a whole: its token states, pooled, join the timestep's embedding, which scales
    and shifts the features.
    """
    return _unet(outer_levels=2)


def build_small() -> UNet2DConditionModel:
    """Make the inner part of a denoiser, which learns on pictures of half the side (`training.growing`)."""
    return _unet(outer_levels=1)


def _unet(outer_levels: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D",) * outer_levels + ("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",) * outer_levels,
        block_out_channels=(64,) * outer_levels + (128, 192),
        layers_per_block=(1,) * outer_levels + (2, 2),
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        addition_embed_type="text",
        resnet_time_scale_shift="scale_shift",
    )


def alphas_cumprod() -> Tensor:
    """Return Stable Diffusion's schedule ("scaled_linear"): the signal's share of variance at each timestep."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS) ** 2
    return torch.cumprod(1 - betas, dim=0)


@dataclass(kw_only=True)
class Ring:
    """The latest scenes of one size, as latents (C, h, w) and token states (tokens, WIDTH)."""

    length: int
    entries: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    _next: int = 0

    def add(self, entry: tuple[Tensor, Tensor]) -> None:
        """Keep an entry, in place of the oldest if the ring is full."""
        if len(self.entries) < self.length:
            self.entries.append(entry)
        else:
            self.entries[self._next] = entry
            self._next = (self._next + 1) % self.length

    def sample(self, count: int, chooser: random.Random) -> list[tuple[Tensor, Tensor]]:
        """Choose entries at random."""
        return chooser.choices(self.entries, k=count)


class Scenes(IterableDataset[tuple[Tensor, list[str]]]):
    """Endless batches of scenes of one size: pictures (B, 3, H, W) in -1..1 and captions."""

    def __init__(
        self, store: Path, seed: int, size: tuple[int, int], batch_size: int, things: tuple[Thing, ...]
    ) -> None:
        self.store, self.seed, self.size, self.batch_size, self.things = store, seed, size, batch_size, things

    def __iter__(self) -> Iterator[tuple[Tensor, list[str]]]:
        info = get_worker_info()
        composer = Composer(SpriteStore(self.store), self.seed + (info.id if info else 0), self.things)
        while True:
            scenes = [composer.compose(*self.size) for _ in range(self.batch_size)]
            yield torch.stack([to_tensor(scene.picture) for scene in scenes]), [scene.caption for scene in scenes]


class LatentPool:
    """Rings of encoded scenes, one for each size, refilled from composing workers."""

    def __init__(
        self,
        work: Path,
        seed: int,
        batch_size: int,
        sizes: dict[tuple[int, int], float],
        things: tuple[Thing, ...],
    ) -> None:
        self.where = device()
        self.sizes, self.things = sizes, things
        self.encoder = AutoencoderDC.from_pretrained(work / "vae").encoder.to(self.where).eval().requires_grad_(False)
        self.encoder = self.encoder.to(memory_format=torch.channels_last)
        self.text = TextEncoder.load(packaged_encoder(), packaged_encoder(), self.where)
        self.empty = self.text.states([""])[0].bfloat16().cpu()
        self.chooser = random.Random(seed)
        self.batch_sizes = {size: batch_size_for(size, batch_size) for size in sizes}
        self.rings = {size: Ring(length=int(RING_LENGTH * min(1.0, 4 * share))) for size, share in sizes.items()}
        self._sources = {size: self._source(work, seed, size) for size in sizes}
        for size, share in sizes.items():
            while len(self.rings[size].entries) < max(32, 1024 * share):
                self.refill(size)

    def _source(self, work: Path, seed: int, size: tuple[int, int]) -> Iterator[tuple[Tensor, list[str]]]:
        fresh = max(1, self.batch_sizes[size] // REUSE)
        scenes = Scenes(work / "sprites", seed + size[0] * 7 + size[1], size, fresh, self.things)
        is_main = self.sizes[size] > 0.5
        return iter(DataLoader(scenes, batch_size=None, num_workers=1 if is_main else 0))

    @torch.no_grad()
    def refill(self, size: tuple[int, int]) -> None:
        """Encode one batch of new scenes."""
        pictures, captions = next(self._sources[size])
        with autocast(self.where):
            latents = self.encoder(pictures.to(self.where, memory_format=torch.channels_last))
            states = self.text.states(captions)
        for latent, state in zip(latents.bfloat16().cpu(), states, strict=True):
            self.rings[size].add((latent.contiguous(), state.bfloat16().cpu()))

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return latents (B, C, h, w) and contexts (B, CONTEXT, WIDTH) of a random size; a tenth without caption."""
        size = self.chooser.choices(list(self.sizes), weights=list(self.sizes.values()))[0]
        self.refill(size)
        entries = self.rings[size].sample(self.batch_sizes[size], self.chooser)
        latents = torch.stack([latent for latent, _ in entries]).to(self.where).float()
        states = [self.empty if self.chooser.random() < DROPPED_SHARE else state for _, state in entries]
        return latents.contiguous(memory_format=torch.channels_last), context(states).to(self.where).float()


def batch_size_for(size: tuple[int, int], batch_size: int) -> int:
    """Return how many pictures of a size make a batch: as many pixels as `batch_size` of 256 x 256, or, of small ones,
    half as many, since more steps are worth more than larger ones.
    """
    share = 256 * 256 / (size[0] * size[1])
    return max(4, int(batch_size * (share**0.5 if share > 1 else share)))


def noised(latents: Tensor, schedule: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return noised latents, timesteps (B,) and the velocity to predict.

    The schedule leaves a trace of signal at the last step, but sampling starts from none (Lin et al. 2023); so half of
    the samples near the end are pure noise, which teaches the model to rely on the prompt there. Late timesteps, where
    shapes are decided, come a little more often.
    """
    count = len(latents)
    evenly = (torch.arange(count) + torch.rand(count)) / count
    timesteps = (evenly**LATE_POWER * TIMESTEPS).long().clamp(max=TIMESTEPS - 1).to(latents.device)
    alpha = schedule[timesteps].sqrt()[:, None, None, None]
    sigma = (1 - schedule[timesteps]).sqrt()[:, None, None, None]
    noise = torch.randn_like(latents)
    is_pure = (timesteps >= PURE_NOISE_FROM) & (torch.rand(count, device=latents.device) < 0.5)
    mixed = torch.where(is_pure[:, None, None, None], noise, alpha * latents + sigma * noise)
    return mixed, timesteps, alpha * noise - sigma * latents


class MovingAverage:
    """The exponential moving average of a model's parameters, with a short memory at first."""

    def __init__(self, model: UNet2DConditionModel) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: UNet2DConditionModel, step: int) -> None:
        """Move towards the model."""
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)


def begin_from(model: UNet2DConditionModel, exported: Path, work: Path) -> None:
    """Begin with the weights of an exported model, and with its autoencoder, since its latents are what they know."""
    model.load_state_dict(
        UNet2DConditionModel.from_pretrained(exported / "unet", torch_dtype=torch.float32).state_dict()
    )
    AutoencoderDC.from_pretrained(exported / "vae", torch_dtype=torch.float32).save_pretrained(work / "vae")


def optimiser_of(model: UNet2DConditionModel) -> Optimiser:
    """Make the optimiser of a denoiser."""
    return Optimiser(model, muon_lr=0.02, adam_lr=1e-3, outer=("conv_in", "conv_out", "time_embedding"))


def grown(small: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a whole denoiser that answers as its inner part did."""
    large = build()
    grow(small.cpu(), large, alphas_cumprod())
    return large


def train(work: Path, minutes: float, batch_size: int, start: Path | None, things: int) -> None:
    """Train for `minutes` (all runs together), checkpointing to `work/denoiser.pt`.

    A checkpoint there is continued; else `start`, an exported model, is what the training begins with.
    """
    where, path = device(), work / "denoiser.pt"
    saved: dict[str, Any] = torch.load(path, map_location=where) if path.exists() else {}
    is_small = saved.get("is_small", start is None)
    model = (build_small() if is_small else build()).to(where).to(memory_format=torch.channels_last)
    if start is not None and not saved:
        begin_from(model, start, work)
    average, optimiser = MovingAverage(model), optimiser_of(model)
    if saved:
        model.load_state_dict(saved["model"])
        average.model.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
    step, stage_began, spent = saved.get("step", 0), saved.get("stage_began", 0), saved.get("spent_seconds", 0.0)
    schedule, known = alphas_cumprod().to(where), THINGS[:things]
    budget, saved_at, mean_loss, first_step = Budget(minutes, spent), spent, 0.0, step
    pool = LatentPool(work, step, batch_size, SMALL_SIZES if is_small else SIZES, known)

    def checkpoint() -> None:
        state = {"model": model.state_dict(), "average": average.model.state_dict()}
        state |= {"optimiser": optimiser.state_dict(), "is_small": is_small, "stage_began": stage_began}
        save_atomically(state | {"step": step, "spent_seconds": budget.spent_seconds}, path)

    while budget.progress < 1:
        if is_small and budget.progress >= SMALL_SHARE:
            is_small, stage_began, first_step = False, step, step
            model = grown(model).to(where).to(memory_format=torch.channels_last)
            average, optimiser = MovingAverage(model), optimiser_of(model)
            pool = LatentPool(work, step, batch_size, SIZES, known)
            logger.info("the denoiser has grown; from here on pictures of the full size")
        latents, states = pool.batch()
        mixed, timesteps, velocity = noised(latents, schedule)
        with autocast(where):
            predicted = model(mixed, timesteps, encoder_hidden_states=states).sample
        loss = functional.mse_loss(predicted.float(), velocity)
        torch.autograd.backward(loss)
        optimiser.step(learning_rate(budget.progress, step - stage_began))
        step += 1
        average.update(model, step - stage_began)
        mean_loss += (loss.item() - mean_loss) / min(step - first_step, 100)
        if step % 50 == 0:
            logger.info("step %d  %.1f min  loss %.4f", step, budget.spent_seconds / 60, mean_loss)
        if budget.spent_seconds - saved_at > CHECKPOINT_SECONDS:
            saved_at = budget.spent_seconds
            checkpoint()
    checkpoint()


def main() -> None:
    """Run `python -m training.denoiser`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and checkpoints")
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--things", type=int, default=COMMON, help="how many of the things, the common ones first")
    parser.add_argument("--start", type=Path, help="an exported model to begin with, if there is no checkpoint")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(options.work, options.minutes, options.batch_size, options.start, options.things)


if __name__ == "__main__":
    main()
