"""Sprites made of nothing, for tests that need no icon set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.sprites import SIDE, SpriteStore


def disc(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a disc that fills its square, opacity multiplied in: (SIDE, SIDE, 4)."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return _filled(np.hypot(x, y) < SIDE / 2, colour)


def cross(colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return an upright cross that fills its square, opacity multiplied in: (SIDE, SIDE, 4)."""
    y, x = np.abs(np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2)
    return _filled((x < SIDE / 8) | (y < SIDE / 8), colour)


def _filled(inside: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.where(inside[..., None], (*colour, 255), 0).astype(np.uint8)


def store(folder: Path, looks: dict[str, NDArray[np.uint8]]) -> SpriteStore:
    """Write a store in which each thing has one look, the same in every style, and open it."""
    np.save(folder / "sprites.npy", np.stack(list(looks.values())))
    entries = [
        {"row": row, "thing": thing, "style": style, "colour": None, "natural": None, "aspect": 1.0}
        for row, thing in enumerate(looks)
        for style in ("3d", "flat", "sticker")
    ]
    (folder / "sprites.json").write_text(json.dumps(entries))
    return SpriteStore(folder)
