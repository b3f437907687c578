"""Train the autoencoder: pictures to latents of an eighth of the side and 8 channels, and back.

diffusers' `AutoencoderDC` (Chen et al. 2024, "Deep Compression Autoencoder"), about 5 M parameters. The loss is L1 on
pixels and on their gradients. The latents get a little noise, are held at zero mean and unit deviation per channel, and
are now and then averaged by 2 x 2 and decoded against the halved picture (Kouzelis et al. 2025, "EQ-VAE"): smooth
latents are easier to diffuse.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.common import DEFAULT_WORK, Budget, autocast, device, learning_rate, save_atomically
from training.optimiser import Optimiser
from training.scenes import Composer
from training.sprites import SpriteStore

logger = logging.getLogger(__name__)

CROP = 128
LATENT_CHANNELS = 8
LATENT_NOISE = 0.08
HALVED_SHARE = 0.25
CLUTTER_SHARE = 0.2
CHECKPOINT_SECONDS = 120.0


def build() -> AutoencoderDC:
    """Make an untrained autoencoder."""
    return AutoencoderDC(
        latent_channels=LATENT_CHANNELS,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(32, 48, 96, 192),
        decoder_block_out_channels=(32, 48, 96, 192),
        encoder_layers_per_block=(0, 1, 1, 2),
        decoder_layers_per_block=(0, 2, 2, 2),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        scaling_factor=1.0,
    )


class Crops(IterableDataset[Tensor]):
    """Endless random crops (3, CROP, CROP) in -1..1, of scenes and of clutter. `crops_per_scene` of each scene."""

    def __init__(self, store: Path, seed: int, crops_per_scene: int = 2) -> None:
        self.store, self.seed, self.crops_per_scene = store, seed, crops_per_scene

    def __iter__(self) -> Any:
        info = get_worker_info()
        composer = Composer(SpriteStore(self.store), self.seed + (info.id if info else 0))
        chooser = composer.chooser
        while True:
            cluttered = chooser.random() < CLUTTER_SHARE
            picture = composer.clutter() if cluttered else composer.compose().picture
            for _ in range(self.crops_per_scene):
                y, x = (chooser.randint(0, picture.shape[axis] - CROP) for axis in (0, 1))
                yield to_tensor(picture[y : y + CROP, x : x + CROP])


def to_tensor(picture: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
    """Turn a picture (H, W, 3) in 0..255 into (3, H, W) in -1..1."""
    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1


def reconstruction_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """L1 on pixels and on their horizontal and vertical differences."""
    error = decoded - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 0.5 * edges


def spread_loss(latents: Tensor) -> Tensor:
    """Hold each channel of the latents (B, C, h, w) at zero mean and unit deviation."""
    flat = latents.transpose(0, 1).flatten(1)
    return (flat.mean(1) ** 2 + (flat.std(1) - 1) ** 2).mean()


def loss_of(model: AutoencoderDC, pictures: Tensor) -> Tensor:
    """One step's loss on pictures (B, 3, H, W)."""
    latents = model.encoder(pictures)
    noisy = latents + LATENT_NOISE * torch.randn_like(latents)
    quarter = max(1, int(len(pictures) * HALVED_SHARE))
    whole = reconstruction_loss(model.decoder(noisy).float(), pictures)
    halved = model.decoder(functional.avg_pool2d(noisy[:quarter], 2)).float()
    small = reconstruction_loss(halved, functional.avg_pool2d(pictures[:quarter], 2))
    return whole + 0.25 * small + 0.1 * spread_loss(latents.float())


@torch.no_grad()
def psnr(model: AutoencoderDC, store: Path, scenes: int = 64) -> float:
    """Mean PSNR in dB on whole held-out scenes (seeds never trained on)."""
    composer = Composer(SpriteStore(store), seed=987_654_321)
    where, decibels = device(), []
    for _ in range(scenes):
        picture = to_tensor(composer.compose().picture)[None].to(where).contiguous(memory_format=torch.channels_last)
        with autocast(where):
            decoded = model.decoder(model.encoder(picture)).float().clamp(-1, 1)
        decibels.append(-10 * math.log10(float(((decoded - picture) / 2).square().mean()) + 1e-10))
    return float(np.mean(decibels))


@torch.no_grad()
def normalise(model: AutoencoderDC, store: Path, scenes: int = 128) -> None:
    """Fold the latents' deviation per channel into the encoder's last and the decoder's first convolution.

    Exact, because neither has a shortcut round it. The mean is left: the loss holds it near zero, and folding it would
    change the decoder's zero padding.
    """
    composer = Composer(SpriteStore(store), seed=123_456_789)
    pictures = torch.stack([to_tensor(composer.compose().picture) for _ in range(scenes)])
    latents = torch.cat([model.encoder(batch.to(device())) for batch in torch.split(pictures, 8)])
    flat = latents.transpose(0, 1).flatten(1)
    deviation = flat.std(1)
    logger.info("latent mean %s deviation %s", flat.mean(1).tolist(), deviation.tolist())
    model.encoder.conv_out.weight.div_(deviation[:, None, None, None])
    model.encoder.conv_out.bias.div_(deviation)
    model.decoder.conv_in.weight.mul_(deviation[None, :, None, None])


def train(work: Path, minutes: float, batch_size: int, workers: int) -> None:
    """Train for `minutes` (all runs together), checkpointing to `work/autoencoder.pt`; write the model at the end."""
    where, path = device(), work / "autoencoder.pt"
    model = build().to(where).to(memory_format=torch.channels_last)
    optimiser = Optimiser(
        model, muon_lr=0.02, adam_lr=2e-3, outer=("encoder.conv_in", "decoder.conv_out", "encoder.conv_out")
    )
    step, spent = 0, 0.0
    if path.exists():
        saved = torch.load(path, map_location=where)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent = saved["step"], saved["spent_seconds"]
    crops = DataLoader(Crops(work / "sprites", seed=step), batch_size=batch_size, num_workers=workers)
    budget, saved_at, average, first_step = Budget(minutes, spent), spent, 0.0, step
    for pictures in crops:
        if budget.progress >= 1:
            break
        pictures = pictures.to(where, memory_format=torch.channels_last)
        with autocast(where):
            loss = loss_of(model, pictures)
        torch.autograd.backward(loss)
        optimiser.step(learning_rate(budget.progress, step))
        step += 1
        average += (loss.item() - average) / min(step - first_step, 50)
        if step % 50 == 0:
            logger.info("step %d  %.1f min  loss %.4f", step, budget.spent_seconds / 60, average)
        if budget.spent_seconds - saved_at > CHECKPOINT_SECONDS:
            saved_at = budget.spent_seconds
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            save_atomically({**state, "step": step, "spent_seconds": saved_at}, path)
            logger.info("held-out PSNR %.2f dB", psnr(model, work / "sprites", scenes=8))
    normalise(model, work / "sprites")
    logger.info("held-out PSNR %.2f dB after %d steps", psnr(model, work / "sprites"), step)
    model.save_pretrained(work / "vae")


def main() -> None:
    """Run `python -m training.autoencoder`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and checkpoints")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(options.work, options.minutes, options.batch_size, options.workers)


if __name__ == "__main__":
    main()
