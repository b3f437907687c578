"""Measure an exported model on fixed prompts, drawn by the service's own engine, and draw the grid of the model card.

Every measure of pictures is also applied to composed scenes: its ceiling. The figures go to `figures.json` in the work
folder, and as a table to the output.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC
from PIL import Image

from training import drawing, prompts
from training.autoencoder import psnr
from training.common import DEFAULT_WORK
from training.drawing import Easel
from training.export import DEFAULT_TARGET
from training.measures import has_background, has_subject_colour, shows_both
from training.prompts import Prompt
from training.recognition import Judge, Picture
from training.scenes import Composer, Scene
from training.sprites import SpriteStore
from training.things import COMMON, THINGS

logger = logging.getLogger(__name__)

FIRST_SEED = 1000
FEW_AIM, MANY_AIM = 60, 80  # recognised, in %: of the common things, of all


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How many pictures each measure is taken of."""

    things: int
    colours: int = 60
    pairs: int = len(prompts.PAIRS)
    composed: int = 300
    composed_pairs: int = 100
    scenes: int = 64

    @classmethod
    def quick(cls) -> Extent:
        """Return as few as show that everything runs."""
        return cls(things=10, colours=12, pairs=4, composed=40, composed_pairs=10, scenes=8)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture and the prompt it was drawn from, or the caption it was composed with."""

    prompt: Prompt
    picture: Picture


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure. `aim` is the least it should be, of seconds the most; `pictures`, how many were judged."""

    label: str
    value: float
    unit: str = "%"
    aim: float | None = None
    ceiling: float | None = None
    pictures: int | None = None
    missed: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool | None:
        """Say whether the aim is met; None where there is none."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.unit == "s" else self.value >= self.aim


Holds = Callable[[Shown], bool]


def share(label: str, holds: Holds, drawn: list[Shown], composed: list[Shown], aim: float | None = None) -> Figure:
    """Measure in how many of a hundred pictures something holds."""
    missed = tuple(shown.prompt.caption for shown in drawn if not holds(shown))
    return Figure(
        label=label,
        value=100 * (1 - len(missed) / len(drawn)),
        aim=aim,
        ceiling=100 * float(np.mean([holds(shown) for shown in composed])),
        pictures=len(drawn),
        missed=missed,
    )


def composed_scenes(store: SpriteStore, kind: str, count: int, things: int) -> list[Shown]:
    """Compose scenes of a kind with seeds never trained on."""
    composer = Composer(store, seed=424_242, things=THINGS[:things])
    scenes = [composer.compose(kind=kind) for _ in range(count)]
    return [Shown(prompt=_prompt_of(scene), picture=scene.picture) for scene in scenes]


def _prompt_of(scene: Scene) -> Prompt:
    return Prompt(caption=scene.caption, things=scene.things, colour=scene.colour, background=scene.background)


def has_its_background(shown: Shown) -> bool:
    """Say whether the background is the one asked for."""
    return has_background(shown.picture, shown.prompt.background)


def has_its_colour(shown: Shown) -> bool:
    """Say whether the subject is in the colour asked for."""
    return has_subject_colour(shown.picture, str(shown.prompt.colour))


def picture_figures(easel: Easel, judge: Judge, store: SpriteStore, extent: Extent) -> list[Figure]:
    """Measure drawn pictures: things and pairs recognised, backgrounds and subjects in the colour asked for."""

    def drawn(asked: list[Prompt]) -> list[Shown]:
        logger.info("drawing %d pictures: %s, ...", len(asked), asked[0].caption)
        pictures = easel.draw([prompt.caption for prompt in asked], seed=FIRST_SEED)
        return [Shown(prompt=prompt, picture=picture) for prompt, picture in zip(asked, pictures, strict=True)]

    def is_among(count: int) -> Holds:
        return lambda shown: shown.prompt.things[0] in judge.best(shown.picture, count)

    def has_its_pair(shown: Shown) -> bool:
        is_stacked = prompts.is_stacked(shown.prompt.caption)
        return shows_both(shown.picture, shown.prompt.things, judge, is_stacked=is_stacked)

    singles = composed_scenes(store, "single", extent.composed, extent.things)
    pairs = composed_scenes(store, "pair", extent.composed_pairs, extent.things)
    coloured = [shown for shown in singles if shown.prompt.colour not in (None, "white")]
    aim = FEW_AIM if extent.things <= COMMON else MANY_AIM
    things = drawn(prompts.of_things(extent.things))
    backgrounds = drawn(prompts.of_backgrounds(extent.colours, extent.things))
    colours = drawn(prompts.of_colours(extent.colours, extent.things))
    return [
        share("thing recognised, among the first five", is_among(5), things, singles, aim),
        share("thing recognised, first", is_among(1), things, singles),
        share("background in the colour asked for", has_its_background, backgrounds, singles, 90),
        share("subject in the colour asked for", has_its_colour, colours, coloured, 70),
        share("both of a pair recognised", has_its_pair, drawn(prompts.of_pairs(extent.pairs)), pairs, 50),
    ]


def other_figures(easel: Easel, model: Path, sprites: Path, extent: Extent) -> list[Figure]:
    """Measure the autoencoder, and the engine's speed."""
    autoencoder = AutoencoderDC.from_pretrained(model / "vae", torch_dtype=torch.float32)
    fidelity = psnr(autoencoder.to(memory_format=torch.channels_last).eval(), sprites, extent.scenes)
    return [
        Figure(label="autoencoder, PSNR on held-out scenes", value=fidelity, unit="dB", aim=30, pictures=extent.scenes),
        Figure(label="loading the weights", value=easel.load_seconds(), unit="s", aim=1),
        Figure(label="a picture in 20 steps", value=easel.picture_seconds(), unit="s", aim=2),
    ]


def settings(easel: Easel, model: Path, extent: Extent) -> dict[str, object]:
    """Return under which settings the figures were taken."""
    return {
        "model": str(model),
        "steps": drawing.STEPS,
        "guidance": drawing.GUIDANCE,
        "sampler": easel.sampler,
        "side": drawing.SIDE,
        "first_seed": FIRST_SEED,
        "device": easel.device.torch_device.type,
        "precision": easel.device.precision,
        "threads": torch.get_num_threads(),
        "extent": asdict(extent),
    }


def table(figures: Iterable[Figure]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| measure | result | ceiling | aim | met |", "|---|---:|---:|---:|---|"]
    for figure in figures:
        label = figure.label if figure.pictures is None else f"{figure.label} ({figure.pictures})"
        numbers = [_number(n, figure.unit) for n in (figure.value, figure.ceiling, figure.aim)]
        met = {None: "", True: "yes", False: "no"}[figure.is_met]
        lines.append(f"| {label} | {' | '.join(numbers)} | {met} |")
    return "\n".join(lines)


def _number(number: float | None, unit: str) -> str:
    if number is None:
        return ""
    digits = 2 if unit == "s" else 1
    return f"{number:.{digits}f}".removesuffix(".0").removesuffix(".00") + f" {unit}"


def save_grid(pictures: list[Picture], path: Path, columns: int = 8, side: int = 128) -> None:
    """Write pictures as one sheet, `side` pixels each, in a palette to keep the file small."""
    sheet = Image.new("RGB", (columns * side, -(-len(pictures) // columns) * side), "white")
    for n, picture in enumerate(pictures):
        small = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(small, (n % columns * side, n // columns * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def evaluate(work: Path, model: Path, easel: Easel, extent: Extent) -> list[Figure]:
    """Take every figure, write them to `work/figures.json`, and return them."""
    judge = Judge.load(work / "judge.pt")
    figures = picture_figures(easel, judge, SpriteStore(work / "sprites"), extent)
    figures += other_figures(easel, model, work / "sprites", extent)
    written = [asdict(figure) | {"is_met": figure.is_met} for figure in figures]
    report = {"settings": settings(easel, model, extent), "figures": written}
    (work / "figures.json").write_text(json.dumps(report, indent=2) + "\n")
    return figures


def main() -> None:
    """Run `python -m training.evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder of data and of the judge")
    parser.add_argument("--model", type=Path, default=DEFAULT_TARGET, help="the exported model")
    parser.add_argument("--count", type=int, default=COMMON, help="how many of the things, the common ones first")
    parser.add_argument("--sampler", default=drawing.SAMPLER, help="as clients of the service name it")
    parser.add_argument("--grid", type=Path, default=Path("docs/pictures/builtin-grid.png"))
    parser.add_argument("--grid-only", action="store_true", help="draw the grid and measure nothing")
    parser.add_argument("--quick", action="store_true", help="measure few pictures and draw no grid: does it run?")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    easel = Easel(options.model, options.sampler)
    if not options.quick:
        save_grid(easel.draw(prompts.GRID), options.grid)
    if not options.grid_only:
        extent = Extent.quick() if options.quick else Extent(things=options.count)
        print(table(evaluate(options.work, options.model, easel, extent)))


if __name__ == "__main__":
    main()
