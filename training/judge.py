"""Train the judge of generated pictures on augmented renders of the icon sets, and on nothing else.

A render is one sprite, about as `recognition.cut_out` would frame it, on a plain background: turned, stretched,
warped, recoloured, partly covered, and spoilt in the ways a small autoencoder spoils (blur, blotches, noise, JPEG).
"""

from __future__ import annotations

import argparse
import logging
import math
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from training.colours import BACKGROUNDS, rgb
from training.common import DEFAULT_WORK, Budget, autocast, device, learning_rate, save_atomically
from training.optimiser import Optimiser
from training.recognition import SIDE, Classifier, Judge
from training.scenes import Composer
from training.sprites import Sprite, SpriteStore
from training.things import BY_NAME, THINGS

logger = logging.getLogger(__name__)

NAMES = [thing.name for thing in THINGS]
SPRITE_SIDE = 80
STYLE_SHARES = {"3d": 0.6, "flat": 0.2, "sticker": 0.2}
OWN_COLOURS_SHARE = 0.6
CHECKPOINT_SECONDS = 60.0


class Renders(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches: renders (B, 3, SIDE, SIDE) in -1..1, and the places of their things in `NAMES` (B,)."""

    def __init__(self, store: SpriteStore, seed: int, batch_size: int) -> None:
        known = [sprite for sprite in store.sprites if sprite.thing in BY_NAME]
        self.seed, self.batch_size = seed, batch_size
        self.sprites = torch.from_numpy(np.stack([_small(store.pictures[sprite.row]) for sprite in known]))
        self.labels = torch.tensor([NAMES.index(sprite.thing) for sprite in known])
        self.shares = _shares(known)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = get_worker_info()
        chance = torch.Generator().manual_seed(self.seed + (info.id if info else 0))
        while True:
            rows = torch.multinomial(self.shares, self.batch_size, replacement=True, generator=chance)
            yield augmented(self.sprites[rows].float() / 255, chance), self.labels[rows]


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink a sprite, opacity multiplied in, to (4, SPRITE_SIDE, SPRITE_SIDE)."""
    image = Image.frombuffer("RGBa", picture.shape[:2], np.ascontiguousarray(picture).tobytes())
    return np.asarray(image.resize((SPRITE_SIDE, SPRITE_SIDE), Image.Resampling.BOX)).transpose(2, 0, 1)


def _shares(sprites: list[Sprite]) -> Tensor:
    """Return how often each look is drawn: things alike, styles by `STYLE_SHARES`, its own colours more often."""
    kinds = [(sprite.thing, sprite.style, sprite.colour is None) for sprite in sprites]
    counts = Counter(kinds)
    colour_shares = {True: OWN_COLOURS_SHARE, False: 1 - OWN_COLOURS_SHARE}
    return torch.tensor([STYLE_SHARES[kind[1]] * colour_shares[kind[2]] / counts[kind] for kind in kinds])


def augmented(sprites: Tensor, chance: torch.Generator) -> Tensor:
    """Turn sprites (B, 4, h, w) in 0..1, opacity multiplied in, into renders (B, 3, SIDE, SIDE) in -1..1."""
    layers = functional.grid_sample(sprites, _places(len(sprites), chance), align_corners=False)
    colours = torch.einsum("bij,bjhw->bihw", _repaints(len(sprites), chance), layers[:, :3])
    opacity = layers[:, 3:] * _uncovered(len(sprites), chance)
    renders = colours * (opacity / layers[:, 3:].clamp(min=1e-3)) + _backgrounds(len(sprites), chance) * (1 - opacity)
    return _spoilt(renders.clamp(0, 1), chance) * 2 - 1


def _uniform(chance: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(shape, generator=chance) * (high - low) + low


def _sometimes(chance: torch.Generator, share: float, count: int) -> Tensor:
    """Return 1 for a share of the batch and 0 for the rest: (B, 1, 1, 1)."""
    return (torch.rand(count, 1, 1, 1, generator=chance) < share).float()


def _smooth(chance: torch.Generator, count: int, channels: int, cells: int) -> Tensor:
    """Return smooth noise (B, channels, SIDE, SIDE): normal at `cells` x `cells` points."""
    coarse = torch.randn(count, channels, cells, cells, generator=chance)
    return functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)


def _places(count: int, chance: torch.Generator) -> Tensor:
    """Return where each pixel of a render looks in its sprite: turned, stretched, shifted, mirrored, warped."""
    angle = torch.randn(count, generator=chance) * math.radians(9)
    across = _uniform(chance, 0.95, 1.4, count)
    down = across * _uniform(chance, 0.85, 1.18, count)
    across = across * torch.where(torch.rand(count, generator=chance) < 0.5, -1.0, 1.0)
    shift = _uniform(chance, -0.15, 0.15, 2, count)
    rows = [angle.cos() * across, -angle.sin() * down, shift[0], angle.sin() * across, angle.cos() * down, shift[1]]
    theta = torch.stack(rows, dim=1).view(count, 2, 3)
    straight = functional.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    return straight + _smooth(chance, count, 2, 5).permute(0, 2, 3, 1) * _uniform(chance, 0.0, 0.06, count, 1, 1, 1)


def _repaints(count: int, chance: torch.Generator) -> Tensor:
    """Return matrices (B, 3, 3) that turn hues (far for a quarter of the batch) and change saturation and contrast."""
    wide = torch.rand(count, generator=chance) < 0.25
    angle = torch.where(wide, _uniform(chance, -math.pi, math.pi, count), _uniform(chance, -0.2, 0.2, count))
    saturation, gain = _uniform(chance, 0.6, 1.2, count, 1, 1), _uniform(chance, 0.8, 1.12, count, 1, 1)
    gray = torch.full((3, 3), 1 / 3)
    axis = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    turn = angle.cos()[:, None, None] * (torch.eye(3) - gray) + angle.sin()[:, None, None] * axis
    return gain * (gray + saturation * turn)


def _backgrounds(count: int, chance: torch.Generator) -> Tensor:
    """Return plain colours (B, 3, 1, 1): white for half of the batch, else named ones, roughly, or any."""
    named = torch.from_numpy(np.stack([rgb(colour) for colour in BACKGROUNDS.values()]))
    colours = named[torch.randint(len(named), (count,), generator=chance)]
    kind = torch.rand(count, 1, generator=chance)
    colours = torch.where(kind < 0.5, torch.ones(3), torch.where(kind < 0.9, colours, _uniform(chance, 0, 1, count, 3)))
    return (colours + 0.02 * torch.randn(count, 3, generator=chance)).clamp(0, 1)[:, :, None, None]


def _uncovered(count: int, chance: torch.Generator) -> Tensor:
    """Return opacities (B, 1, SIDE, SIDE) with a smooth hole in some of them: pictures lack parts."""
    hole = ((_smooth(chance, count, 1, 4) - 1.0) * 4).clamp(0, 1)
    return 1 - hole * _sometimes(chance, 0.3, count)


def _spoilt(renders: Tensor, chance: torch.Generator) -> Tensor:
    """Blur, blotch, noise and compress renders in 0..1, each by a random amount."""
    count = len(renders)
    for factor, share in ((2, 0.5), (4, 0.3)):
        blurred = functional.interpolate(
            functional.avg_pool2d(renders, factor), size=(SIDE, SIDE), mode="bilinear", align_corners=False
        )
        renders = renders.lerp(blurred, _sometimes(chance, share, count) * _uniform(chance, 0.3, 1.0, count, 1, 1, 1))
    renders = renders + _smooth(chance, count, 3, 8) * _uniform(chance, 0.0, 0.06, count, 1, 1, 1)
    noise = torch.randn(renders.shape, generator=chance) * _uniform(chance, 0.0, 0.04, count, 1, 1, 1)
    renders = (renders + noise).clamp(0, 1)
    for row in range(0, count, 8):
        renders[row] = _compressed(renders[row], quality=int(torch.randint(30, 91, (), generator=chance)))
    return renders


def _compressed(render: Tensor, quality: int) -> Tensor:
    """Save and load a render (3, h, w) in 0..1 as JPEG."""
    file = BytesIO()
    pixels = (render * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255


def held_out_accuracy(judge: Judge, store: SpriteStore, scenes: int = 200) -> tuple[float, float]:
    """Return how many composed scenes of one thing are named rightly, first and among the first five."""
    composer = Composer(store, seed=31_337)
    shown = [composer.compose(kind="single") for _ in range(scenes)]
    found = [(scene.things[0], judge.best(scene.picture)) for scene in shown]
    first, five = (np.mean([thing in names[:count] for thing, names in found]) for count in (1, 5))
    return float(first), float(five)


def train(work: Path, minutes: float, batch_size: int, workers: int) -> None:
    """Train for `minutes` (all runs together), checkpointing to `work/judge.pt`, which is also the result."""
    where, path = device(), work / "judge.pt"
    network = Classifier(len(NAMES)).to(where)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in PyTorch's stubs
    optimiser = Optimiser(network, muon_lr=0.02, adam_lr=2e-3, outer=("stem", "head"))
    step, spent = 0, 0.0
    if path.exists():
        saved = torch.load(path, map_location=where)
        network.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        step, spent = saved["step"], saved["spent_seconds"]
    store = SpriteStore(work / "sprites")
    renders = DataLoader(Renders(store, step, batch_size), batch_size=None, num_workers=workers)
    budget, saved_at, average, first_step = Budget(minutes, spent), spent, 0.0, step

    def checkpoint() -> None:
        state = {"model": network.state_dict(), "optimiser": optimiser.state_dict(), "names": NAMES}
        save_atomically({**state, "step": step, "spent_seconds": budget.spent_seconds}, path)

    for pictures, things in renders:
        if budget.progress >= 1:
            break
        with autocast(where):
            scores = network(pictures.to(where, memory_format=torch.channels_last))
        loss = functional.cross_entropy(scores.float(), things.to(where), label_smoothing=0.1)
        torch.autograd.backward(loss)
        optimiser.step(learning_rate(budget.progress, step))
        step += 1
        average += (loss.item() - average) / min(step - first_step, 50)
        if step % 50 == 0:
            logger.info("step %d  %.1f min  loss %.4f", step, budget.spent_seconds / 60, average)
        if budget.spent_seconds - saved_at > CHECKPOINT_SECONDS:
            saved_at = budget.spent_seconds
            checkpoint()
    checkpoint()
    first, five = held_out_accuracy(Judge.load(path), store)
    logger.info("held-out scenes named rightly first %.1f %%, among five %.1f %%", first * 100, five * 100)


def main() -> None:
    """Run `python -m training.judge`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and checkpoints")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(options.work, options.minutes, options.batch_size, options.workers)


if __name__ == "__main__":
    main()
