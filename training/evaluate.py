"""Measure the exported model on fixed prompts, and draw the grid of the model card.

Four figures from generated pictures (20 steps, guidance 5): things recognised, backgrounds and subjects in the colour
asked for, pairs recognised; each is also measured on composed scenes, as the ceiling of the measure itself. And the
autoencoder's PSNR on held-out scenes.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.autoencoder import psnr
from training.colours import BACKGROUNDS, PALETTE, rgb, to_oklab
from training.common import DEFAULT_WORK
from training.export import DEFAULT_TARGET
from training.recognition import Judge, border
from training.sampling import Sampler
from training.scenes import Composer
from training.sprites import SpriteStore
from training.things import THINGS, article

logger = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
Draw = Callable[[list[str]], list[Picture]]
BATCH = 8
BACKGROUND_DISTANCE = 0.1  # in OKLab; about the distance from "light blue" to "blue", halved
SUBJECT_SHARE = 0.2

GRID = (
    "a red apple", "red apple", "a blue car", "a green car", "a yellow banana", "a cat", "a dog", "an orange cat",
    "a red apple on a blue background", "a cat on a yellow background", "a rocket on a black background",
    "a star on a purple background", "a pink heart", "a blue heart", "a green frog", "a lion on a green background",
    "a house", "a blue house", "a tree", "a palm tree on a light blue background", "a sunflower", "a red rose",
    "the sun on a light blue background", "the moon on a black background", "a purple umbrella", "a red balloon",
    "a gift", "a golden crown", "a pizza", "a burger", "a donut on a pink background", "an ice cream",
    "a cup of coffee", "a birthday cake", "a strawberry", "a pineapple", "a penguin", "an owl", "a fox", "a rabbit",
    "a panda", "a tiger", "a pink pig", "a unicorn", "a blue butterfly", "a turtle", "a whale", "an octopus",
    "a robot", "an alien", "a ghost on a black background", "a pumpkin", "a snowman on a blue background", "a cactus",
    "a mushroom", "a smiley face", "a train", "an airplane on a light blue background", "a bicycle", "a guitar",
    "three apples", "two cats", "a dog next to a house", "a cat wearing a top hat",
)  # fmt: skip

PAIRS = (
    ("dog", "house"), ("cat", "tree"), ("apple", "banana"), ("car", "tree"), ("robot", "rocket"), ("bear", "balloon"),
    ("star", "moon"), ("pizza", "burger"), ("rabbit", "carrot"), ("sun", "cloud"), ("penguin", "fish"), ("pig", "cow"),
    ("heart", "rose"), ("owl", "tree"), ("bus", "car"), ("frog", "mushroom"), ("cake", "gift"), ("crown", "lion"),
    ("monkey", "banana"), ("ghost", "pumpkin"),
)  # fmt: skip


def has_background(picture: Picture, colour: str) -> bool:
    """Say whether the background is near the named colour and nearer than to any other."""
    names = list(BACKGROUNDS)
    anchors = np.stack([to_oklab(rgb(BACKGROUNDS[name])) for name in names])
    distances = np.linalg.norm(anchors - to_oklab(border(picture)), axis=1)
    return names[int(distances.argmin())] == colour and float(distances.min()) < BACKGROUND_DISTANCE


def has_subject_colour(picture: Picture, colour: str) -> bool:
    """Say whether the named colour is one of the two commonest of what stands out from the background."""
    lab = to_oklab(picture.reshape(-1, 3).astype(np.float32) / 255)
    subject = lab[np.linalg.norm(lab - to_oklab(border(picture)), axis=1) > 0.08]
    if len(subject) < 0.05 * len(lab):
        return False
    names = list(PALETTE)
    anchors = np.stack([to_oklab(rgb(PALETTE[name])) for name in names])
    weighted = (subject[:, None] - anchors) ** 2 @ np.array([0.4, 1, 1], dtype=np.float32)
    shares = np.bincount(weighted.argmin(axis=1), minlength=len(names)) / len(subject)
    asked = names.index(colour)
    return bool(asked in shares.argsort()[-2:] and shares[asked] > SUBJECT_SHARE)


def in_batches(sampler: Sampler, prompts: list[str], seed: int = 1000) -> list[Picture]:
    """Draw one picture a prompt, each with a seed of its own."""
    starts = range(0, len(prompts), BATCH)
    return [picture for start in starts for picture in sampler.draw(prompts[start : start + BATCH], seed=seed + start)]


def background_accuracy(draw: Draw, count: int) -> float:
    """Share of backgrounds in the colour asked for."""
    colours = [list(BACKGROUNDS)[n % len(BACKGROUNDS)] for n in range(count)]
    things = [THINGS[(n * 7) % len(THINGS)] for n in range(count)]
    prompts = [f"{article(t.name)} on {article(c)} background" for t, c in zip(things, colours, strict=True)]
    seen = [has_background(picture, colour) for picture, colour in zip(draw(prompts), colours, strict=True)]
    return float(np.mean(seen))


def subject_accuracy(draw: Draw, count: int) -> float:
    """Share of subjects in the colour asked for, on white."""
    usable = [thing for thing in THINGS if thing.is_recolourable]
    names = [name for name in PALETTE if name != "white"]
    asked = [(usable[(n * 5) % len(usable)], names[n % len(names)]) for n in range(count)]
    pictures = draw([article(f"{colour} {thing.name}") for thing, colour in asked])
    return float(np.mean([has_subject_colour(p, colour) for p, (_, colour) in zip(pictures, asked, strict=True)]))


def recognition_rates(draw: Draw, judge: Judge, count: int) -> tuple[float, float, list[str]]:
    """Share of things recognised first and among the first five, and the names of those missed."""
    names = [thing.name for thing in THINGS[:count]]
    found = [judge.best(picture) for picture in draw([article(name) for name in names])]
    first = float(np.mean([row[:1] == [name] for row, name in zip(found, names, strict=True)]))
    missed = [name for row, name in zip(found, names, strict=True) if name not in row]
    return first, 1 - len(missed) / len(names), missed


def pair_rate(draw: Draw, judge: Judge) -> float:
    """Share of pairs of which each is among the first five of a half of the picture."""
    halves = [
        judge.best_in_halves(picture) for picture in draw([f"{article(a)} next to {article(b)}" for a, b in PAIRS])
    ]
    either = [
        (a in left and b in right) or (b in left and a in right)
        for (left, right), (a, b) in zip(halves, PAIRS, strict=True)
    ]
    return float(np.mean(either))


def ceilings(store: Path, judge: Judge, count: int = 300) -> dict[str, float]:
    """Apply the same measures to composed scenes of one thing, never trained on."""
    composer = Composer(SpriteStore(store), seed=424_242)
    scenes = [composer.compose() for _ in range(count)]
    singles = [s for s in scenes if s.kind == "single"]
    coloured = [s for s in singles if s.colour not in (None, "white")]
    return {
        "background": float(np.mean([has_background(s.picture, s.background) for s in scenes])),
        "subject": float(np.mean([has_subject_colour(s.picture, str(s.colour)) for s in coloured])),
        "recognition_top5": float(np.mean([s.things[0] in judge.best(s.picture) for s in singles])),
    }


def save_grid(pictures: list[Picture], path: Path, columns: int = 8, side: int = 128) -> None:
    """Write pictures as one sheet, `side` pixels each, in a palette to keep the file small."""
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for n, picture in enumerate(pictures):
        small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (n % columns * side, n // columns * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def measure(work: Path, model: Path, count: int) -> dict[str, object]:
    """Return every figure of the card."""
    sampler, judge = Sampler(model), Judge(work / "sprites")

    def draw(prompts: list[str]) -> list[Picture]:
        return in_batches(sampler, prompts)

    first, five, missed = recognition_rates(draw, judge, 100)
    return {
        "recognition_top1": first,
        "recognition_top5": five,
        "missed": missed,
        "pairs": pair_rate(draw, judge),
        "background": background_accuracy(draw, count),
        "subject": subject_accuracy(draw, count),
        "autoencoder_psnr_db": psnr(sampler.vae, work / "sprites"),
        "ceilings": ceilings(work / "sprites", judge),
    }


def main() -> None:
    """Run `python -m training.evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and checkpoints")
    parser.add_argument("--model", type=Path, default=DEFAULT_TARGET)
    parser.add_argument("--grid", type=Path, default=Path("docs/pictures/builtin-grid.png"))
    parser.add_argument("--count", type=int, default=66, help="pictures for each colour measure")
    parser.add_argument("--grid-only", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    save_grid(in_batches(Sampler(options.model), list(GRID), seed=0), options.grid)
    if not options.grid_only:
        figures = measure(options.work, options.model, options.count)
        (options.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
