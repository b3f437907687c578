"""Scenes composed from sprites, each with the caption that is true of it.

Knows composition and wording; pictures of single things come from `training.sprites`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.colours import BACKGROUNDS, PALETTE, rgb
from training.sprites import SIDE, Sprite, SpriteStore
from training.things import THINGS, Thing, article, plural

SCENE_WEIGHTS = {"single": 0.80, "pair": 0.12, "count": 0.04, "hat": 0.04}
STYLE_WEIGHTS = {"3d": 0.90, "flat": 0.10, "sticker": 0.0}
STYLE_WORDS = {
    "3d": ("3d style", "in 3d style"),
    "flat": ("flat style", "in flat style", "flat design"),
    "sticker": ("sticker style", "in sticker style", "cartoon style"),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}
OPENINGS = (
    "a picture of", "a photo of", "an image of", "a drawing of", "an illustration of", "an emoji of", "a sticker of",
    "a cute picture of", "picture of", "photo of", "an icon of", "a painting of",
)  # fmt: skip
BACKGROUND_PHRASES = (
    "on {a} background", "on {a} background", "on {a} background", ", {} background", "with {a} background",
    "against {a} background", "in front of {a} background", "on {}",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture (H, W, 3) and its caption. `things` are the names of what is drawn; colours are named or None."""

    kind: str
    picture: NDArray[np.uint8]
    caption: str
    things: tuple[str, ...]
    colour: str | None
    background: str


@dataclass(frozen=True, kw_only=True)
class _Subject:
    thing: Thing
    sprite: Sprite
    colour: str | None

    def noun(self, chooser: random.Random) -> str:
        """Return a name of the thing, with the colour if the colour is to be said."""
        names = (self.thing.name, *self.thing.synonyms)
        name = names[0] if chooser.random() < 0.75 else chooser.choice(names)
        return f"{self.colour} {name}" if self.colour else name

    def phrase(self, chooser: random.Random) -> str:
        """Return the noun with its article: "a red apple", "the sun", "grapes"."""
        noun = self.noun(chooser)
        if not self.thing.is_mass:
            return article(noun)
        return f"the {noun}" if chooser.random() < 0.4 else noun


class Composer:
    """Draws random scenes of `things`. One composer per worker: `seed` makes its scenes."""

    def __init__(self, store: SpriteStore, seed: int, things: tuple[Thing, ...] = THINGS) -> None:
        self.store = store
        self.things = things
        self.chooser = random.Random(seed)

    def compose(self, width: int = 256, height: int = 256, kind: str | None = None) -> Scene:
        """Draw a scene of a kind of `SCENE_WEIGHTS`, or of a random one."""
        kind = kind or self.chooser.choices(list(SCENE_WEIGHTS), weights=list(SCENE_WEIGHTS.values()))[0]
        style = self.chooser.choices(list(STYLE_WEIGHTS), weights=list(STYLE_WEIGHTS.values()))[0]
        draw = {"single": self._single, "pair": self._pair, "count": self._count, "hat": self._hat}[kind]
        return draw(style, width, height)

    def clutter(self, side: int = 256) -> NDArray[np.uint8]:
        """Draw anything anywhere, captionless, for the autoencoder: several sprites on a plain or shaded ground."""
        top, bottom = (np.array([self.chooser.random() for _ in range(3)], dtype=np.float32) for _ in range(2))
        shade = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
        canvas = np.broadcast_to((top * (1 - shade) + bottom * shade) * 255, (side, side, 3)).copy()
        for _ in range(self.chooser.randint(2, 6)):
            row = self.chooser.randrange(len(self.store.pictures))
            size = int(side * self.chooser.uniform(0.2, 0.8))
            spot = (self.chooser.uniform(0.1, 0.9) * side, self.chooser.uniform(0.1, 0.9) * side)
            _paste(canvas, self.store.pictures[row], spot, size)
        return canvas.astype(np.uint8)

    def _single(self, style: str, width: int, height: int) -> Scene:
        subject = self._subject(style)
        background, canvas = self._background(width, height, {subject.sprite.colour or subject.sprite.natural})
        side = min(width, height)
        size = int(side * self.chooser.triangular(0.60, 0.84, 0.74))
        slack_x, slack_y = (width - size) / 2, (height - size) / 2
        spot = (width / 2 + slack_x * self._jitter(), height / 2 + slack_y * self._jitter())
        _paste(canvas, self.store.pictures[subject.sprite.row], spot, size)
        caption = self._caption(subject.phrase(self.chooser), style, background, noun=subject.noun(self.chooser))
        return Scene(
            kind="single",
            picture=canvas.astype(np.uint8),
            caption=caption,
            things=(subject.thing.name,),
            colour=subject.colour,
            background=background,
        )

    def _pair(self, style: str, width: int, height: int) -> Scene:
        first, second = self._subject(style), self._subject(style)
        while second.thing is first.thing:
            second = self._subject(style)
        background, canvas = self._background(
            width, height, {s.sprite.colour or s.sprite.natural for s in (first, second)}
        )
        said, (dx, dy) = self.chooser.choice(
            [("next to", (-1, 0)), ("next to", (1, 0)), ("and", (-1, 0)), ("and", (-1, 0)), ("beside", (1, 0)),
             ("to the left of", (-1, 0)), ("to the right of", (1, 0)), ("above", (0, -1)), ("below", (0, 1)),
             ("on top of", (0, -1))]
        )  # fmt: skip
        size = int(min(width, height) * self.chooser.uniform(0.42, 0.48))
        reach = 0.245 * (width if dx else height)
        for subject, sign in ((first, 1), (second, -1)):
            spot = (width / 2 + sign * dx * reach, height / 2 + sign * dy * reach + self._jitter() * 6)
            _paste(canvas, self.store.pictures[subject.sprite.row], spot, size)
        phrase = f"{first.phrase(self.chooser)} {said} {second.phrase(self.chooser)}"
        return Scene(
            kind="pair",
            picture=canvas.astype(np.uint8),
            caption=self._caption(phrase, style, background),
            things=(first.thing.name, second.thing.name),
            colour=None,
            background=background,
        )

    def _count(self, style: str, width: int, height: int) -> Scene:
        subject = self._subject(style)
        while subject.thing.is_mass:
            subject = self._subject(style)
        count = self.chooser.choice((2, 2, 3, 3, 4))
        background, canvas = self._background(width, height, {subject.sprite.colour or subject.sprite.natural})
        side = min(width, height)
        spots = {
            2: ((-0.25, 0), (0.25, 0)),
            3: ((0, -0.23), (-0.25, 0.23), (0.25, 0.23)),
            4: ((-0.24, -0.24), (0.24, -0.24), (-0.24, 0.24), (0.24, 0.24)),
        }[count]
        size = int(side * self.chooser.uniform(0.4, 0.45))
        for x, y in spots:
            _paste(canvas, self.store.pictures[subject.sprite.row], (width / 2 + x * side, height / 2 + y * side), size)
        phrase = f"{NUMBERS[count]} {plural(subject.noun(self.chooser))}"
        return Scene(
            kind="count",
            picture=canvas.astype(np.uint8),
            caption=self._caption(phrase, style, background),
            things=(subject.thing.name,),
            colour=subject.colour,
            background=background,
        )

    def _hat(self, style: str, width: int, height: int) -> Scene:
        face = self._subject(style, tuple(thing for thing in self.things if thing.is_face))
        hat = self._subject(style, tuple(thing for thing in self.things if thing.is_hat))
        background, canvas = self._background(width, height, {hat.sprite.colour or hat.sprite.natural})
        side = min(width, height)
        size = int(side * self.chooser.uniform(0.56, 0.62))
        centre = (width / 2, height / 2 + side * 0.13)
        _paste(canvas, self.store.pictures[face.sprite.row], centre, size)
        top = centre[1] - size * 0.5 * min(1.0, 1 / face.sprite.aspect)
        hat_size = int(size * 0.62)
        rise = hat_size * 0.5 * min(1.0, 1 / hat.sprite.aspect)
        _paste(canvas, self.store.pictures[hat.sprite.row], (centre[0], top - rise * 0.62), hat_size)
        said = self.chooser.choice(("wearing", "wearing", "with", "in"))
        phrase = f"{face.phrase(self.chooser)} {said} {hat.phrase(self.chooser)}"
        return Scene(
            kind="hat",
            picture=canvas.astype(np.uint8),
            caption=self._caption(phrase, style, background),
            things=(face.thing.name, hat.thing.name),
            colour=face.colour,
            background=background,
        )

    def _subject(self, style: str, things: tuple[Thing, ...] | None = None) -> _Subject:
        """Choose a thing and its look: its own colours (named now and then) or a named colour."""
        thing = self.chooser.choice(things or self.things)
        if thing.is_recolourable and self.chooser.random() < 0.5:
            colour = self.chooser.choice(list(PALETTE))
            if sprite := self.store.find(thing.name, style, colour):
                return _Subject(thing=thing, sprite=sprite, colour=colour)
        sprite = self.store.find(thing.name, style)
        if sprite is None:
            return self._subject(style, things)
        is_said = sprite.natural is not None and self.chooser.random() < 0.3
        return _Subject(thing=thing, sprite=sprite, colour=sprite.natural if is_said else None)

    def _background(self, width: int, height: int, taken: set[str | None]) -> tuple[str, NDArray[np.float32]]:
        """Choose a background in no colour of the subjects, white about half the time."""
        free = [name for name in BACKGROUNDS if name not in taken and name != "white"]
        is_white = "white" not in taken and self.chooser.random() < 0.5
        name = "white" if is_white else self.chooser.choice(free)
        return name, np.broadcast_to(rgb(BACKGROUNDS[name]) * 255, (height, width, 3)).copy()

    def _caption(self, phrase: str, style: str, background: str, noun: str | None = None) -> str:
        if noun and self.chooser.random() < 0.3:
            phrase = noun
        elif self.chooser.random() < 0.25:
            phrase = f"{self.chooser.choice(OPENINGS)} {phrase}"
        if background != "white" or self.chooser.random() < 0.25:
            said = self.chooser.choice(BACKGROUND_PHRASES).format(background, a=article(background))
            phrase += said if said.startswith(",") else f" {said}"
        if style != "3d" or self.chooser.random() < 0.06:
            words = self.chooser.choice(STYLE_WORDS[style])
            phrase += f" {words}" if words.startswith("in ") else f", {words}"
        return phrase

    def _jitter(self) -> float:
        return max(-1.0, min(1.0, self.chooser.gauss(0, 0.25)))


def _paste(canvas: NDArray[np.float32], picture: NDArray[np.uint8], centre: tuple[float, float], size: int) -> None:
    """Lay a sprite (SIDE, SIDE, 4) over the canvas (H, W, 3) in 0..255, `size` pixels wide, round `centre` (x, y)."""
    image = Image.frombuffer("RGBa", (SIDE, SIDE), np.ascontiguousarray(picture).tobytes())
    layer = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).astype(np.float32)
    left, top = round(centre[0] - size / 2), round(centre[1] - size / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + size, canvas.shape[1]), min(top + size, canvas.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = layer[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    region *= 1 - part[..., 3:] / 255
    region += part[..., :3]
    np.clip(region, 0, 255, out=region)
