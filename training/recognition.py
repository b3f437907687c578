"""A judge of what a picture shows: the nearest of the rendered sprites, by shape and colour; nothing is learned.

It knows the sprites only, never a generated picture. A subject is cut out of its plain background, shrunk, and compared
with every look of every thing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.colours import FloatArray, to_oklab
from training.sprites import SpriteStore
from training.things import BY_NAME

SIDE = 24
_SHAPE_WEIGHT = 0.35  # of the silhouette beside the colours, whose OKLab differences are about that large


def border(picture: NDArray[np.uint8]) -> FloatArray:
    """Return the median colour, in 0..1, of a picture's outermost pixels: its background."""
    edge = np.concatenate([picture[:4].reshape(-1, 3), picture[-4:].reshape(-1, 3), picture[:, :4].reshape(-1, 3)])
    return np.asarray(np.median(edge, axis=0), dtype=np.float32) / 255


def foreground(picture: NDArray[np.uint8], background: FloatArray) -> FloatArray:
    """Return how far each pixel (H, W) stands out from the background, 0..1."""
    distance = np.linalg.norm(to_oklab(picture.astype(np.float32) / 255) - to_oklab(background), axis=-1)
    return np.asarray(np.clip((distance - 0.05) / 0.05, 0, 1), dtype=np.float32)


def features(picture: NDArray[np.uint8], mask: FloatArray) -> FloatArray:
    """Return the subject, cut out and shrunk, as a vector; stray specks (a hundredth of its mass) do not count.

    picture: (H, W, 3); mask: (H, W), its opacity in 0..1.
    """
    top, bottom = _extent(mask.sum(axis=1))
    left, right = _extent(mask.sum(axis=0))
    side = max(bottom - top, right - left)
    layers = np.concatenate([to_oklab(picture.astype(np.float32) / 255) * mask[..., None], mask[..., None]], axis=-1)
    square = np.zeros((side, side, 4), dtype=np.float32)
    y, x = (side - (bottom - top)) // 2, (side - (right - left)) // 2
    square[y : y + bottom - top, x : x + right - left] = layers[top:bottom, left:right]
    square[..., 3] *= _SHAPE_WEIGHT
    small = [np.asarray(Image.fromarray(square[..., n]).resize((SIDE, SIDE), Image.Resampling.BOX)) for n in range(4)]
    return np.stack(small).ravel()


def _extent(mass: FloatArray) -> tuple[int, int]:
    """Return the range that holds all but a hundredth of the mass at either end."""
    total = np.cumsum(mass) / max(float(mass.sum()), 1e-6)
    first, last = int(np.searchsorted(total, 0.01)), int(np.searchsorted(total, 0.99))
    return first, max(last + 1, first + 1)


class Judge:
    """Every look of every thing, ready to be compared with."""

    def __init__(self, store: Path) -> None:
        sprites = SpriteStore(store)
        known = [sprite for sprite in sprites.sprites if sprite.thing in BY_NAME]
        self.names = [sprite.thing for sprite in known]
        self._looks = np.stack([_sprite_features(sprites.pictures[sprite.row]) for sprite in known])

    def best(self, picture: NDArray[np.uint8], count: int = 5) -> list[str]:
        """Return the `count` things nearest to the one subject of a picture (H, W, 3), nearest first."""
        mask = foreground(picture, border(picture))
        if mask.mean() < 0.01:
            return []
        distances = np.linalg.norm(self._looks - features(picture, mask), axis=1)
        names = dict.fromkeys(self.names[row] for row in distances.argsort())
        return list(names)[:count]

    def best_in_halves(self, picture: NDArray[np.uint8], count: int = 5) -> list[list[str]]:
        """Judge the left and the right half of a picture of two things side by side."""
        middle = picture.shape[1] // 2
        return [self.best(half, count) for half in (picture[:, :middle], picture[:, middle:])]


def _sprite_features(picture: NDArray[np.uint8]) -> FloatArray:
    """Return a sprite's features. picture: (SIDE, SIDE, 4), opacity multiplied in."""
    small = picture[::2, ::2]
    alpha = small[..., 3:].astype(np.float32) / 255
    plain = np.clip(small[..., :3] / np.maximum(alpha, 1e-3), 0, 255).astype(np.uint8)
    return features(plain, alpha[..., 0])
