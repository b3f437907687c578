"""Pictures of things: rendered from the icon sets, recoloured, kept in one memory-mapped file.

Sources (npm packages): `@iconify-json/fluent-emoji` (MIT), `@iconify-json/noto` (Apache-2.0), `@iconify-json/twemoji`
(CC-BY 4.0). `python -m training.data` writes the store; scenes read it.
"""

from __future__ import annotations

import json
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.colours import PALETTE, natural_colour, recolour
from training.things import THINGS, Thing

SIDE = 256
STYLES = {"3d": "fluent-emoji", "flat": "twemoji", "sticker": "noto"}
_RENDER_SIDE = 320


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """One picture: `row` in the store. `colour` is its paint, `natural` its own colour, if that has a name."""

    row: int
    thing: str
    style: str
    colour: str | None
    natural: str | None
    aspect: float


@dataclass(frozen=True, kw_only=True)
class IconSet:
    """One iconify collection."""

    icons: dict[str, dict[str, object]]
    aliases: dict[str, dict[str, object]]
    side: int

    @classmethod
    def load(cls, path: Path) -> IconSet:
        """Read `icons.json` of an iconify package."""
        raw = json.loads(path.read_text())
        return cls(icons=raw["icons"], aliases=raw.get("aliases", {}), side=int(raw.get("height", 16)))

    def svg(self, name: str) -> str | None:
        """Return an icon as a stand-alone SVG, or None if the set lacks it."""
        if name in self.aliases:
            name = str(self.aliases[name]["parent"])
        icon = self.icons.get(name)
        if icon is None:
            return None
        width, height = icon.get("width", self.side), icon.get("height", self.side)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
        )


def render(svg: str) -> NDArray[np.uint8]:
    """Render an icon, cut to what it shows and centred in a square: (SIDE, SIDE, 4), opacity not multiplied in."""
    import resvg_py

    picture = Image.open(BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_RENDER_SIDE)))).convert("RGBA")
    box = picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    cut = picture.crop(box)
    side = max(cut.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _premultiplied(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = rgba[..., 3:].astype(np.uint16)
    return np.concatenate([(rgba[..., :3] * alpha // 255).astype(np.uint8), rgba[..., 3:]], axis=-1)


def _aspect(rgba: NDArray[np.uint8]) -> float:
    opaque = rgba[..., 3] > 8
    return float(opaque.any(axis=0).sum() / max(opaque.any(axis=1).sum(), 1))


def _pictures(thing: Thing, icons: Path) -> list[tuple[Sprite, NDArray[np.uint8]]]:
    """Return every look of a thing: each style in its own colours and, where sensible, in each named colour."""
    looks = []
    for style, collection in STYLES.items():
        icon_set = _icon_set(icons / collection / "icons.json")
        svg = next((found for icon in thing.icons if (found := icon_set.svg(icon))), None)
        if svg is None:
            continue
        own = render(svg)
        natural = natural_colour(own)
        for colour in (None, *PALETTE) if thing.is_recolourable else (None,):
            picture = own if colour is None else recolour(own, colour)
            if colour is not None and picture is own:
                continue
            sprite = Sprite(row=0, thing=thing.name, style=style, colour=colour, natural=natural, aspect=_aspect(own))
            looks.append((sprite, _premultiplied(picture)))
    return looks


_ICON_SETS: dict[Path, IconSet] = {}


def _icon_set(path: Path) -> IconSet:
    if path not in _ICON_SETS:
        _ICON_SETS[path] = IconSet.load(path)
    return _ICON_SETS[path]


def _other_picture(svg: str) -> NDArray[np.uint8] | None:
    try:
        return _premultiplied(render(svg))
    except (ValueError, OSError):
        return None


def _others(icons: Path, count: int) -> list[str]:
    """Choose icons of no named thing, so that the autoencoder sees more kinds of edges than the things have."""
    chooser = random.Random(0)
    svgs = []
    for collection in STYLES.values():
        icon_set = _icon_set(icons / collection / "icons.json")
        names = sorted(name for name in icon_set.icons if "skin-tone" not in name and "flag" not in name)
        svgs += [svg for name in chooser.sample(names, count // len(STYLES)) if (svg := icon_set.svg(name))]
    return svgs


def build(icons: Path, store: Path, others: int = 600, workers: int = 2) -> int:
    """Render every look into `store` (`sprites.npy`, `sprites.json`) and return their number."""
    store.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        looks = [look for some in pool.map(partial(_pictures, icons=icons), THINGS, chunksize=4) for look in some]
        extra = [picture for picture in pool.map(_other_picture, _others(icons, others)) if picture is not None]
    pictures = np.stack([picture for _, picture in looks] + extra)
    np.save(store / "sprites.npy", pictures)
    index = [{**asdict(sprite), "row": row} for row, (sprite, _) in enumerate(looks)]
    (store / "sprites.json").write_text(json.dumps(index))
    return len(pictures)


class SpriteStore:
    """The rendered pictures, looked up by thing, style and colour. Pictures have opacity multiplied in."""

    def __init__(self, store: Path) -> None:
        self.pictures: NDArray[np.uint8] = np.load(store / "sprites.npy", mmap_mode="r")
        self.sprites = [Sprite(**entry) for entry in json.loads((store / "sprites.json").read_text())]
        self._by_look = {(s.thing, s.style, s.colour): s for s in self.sprites}

    def find(self, thing: str, style: str, colour: str | None = None) -> Sprite | None:
        """Return the picture of `thing` in that look, or None if there is none."""
        return self._by_look.get((thing, style, colour))
