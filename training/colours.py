"""Colour names, and recolouring a picture of a thing to a named colour (in OKLab, Ottosson 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

PALETTE: dict[str, str] = {
    "red": "#e02430",
    "orange": "#fb8a1e",
    "yellow": "#fdd02c",
    "green": "#36a844",
    "blue": "#2878e0",
    "purple": "#8a40c8",
    "pink": "#f77ab8",
    "brown": "#8a5733",
    "black": "#2c2c30",
    "white": "#f6f6f8",
    "gray": "#8f969e",
}

BACKGROUNDS: dict[str, str] = {
    "white": "#ffffff",
    "red": "#d8242e",
    "orange": "#f88c24",
    "yellow": "#fcd434",
    "green": "#2f9e44",
    "blue": "#2470d8",
    "light blue": "#a4d4f8",
    "purple": "#7e3cba",
    "pink": "#f8a0cc",
    "brown": "#85552f",
    "black": "#101012",
    "gray": "#8e949c",
}

_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]], dtype=np.float32)  # fmt: skip
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]], dtype=np.float32)  # fmt: skip
_FROM_LAB = np.linalg.inv(_TO_LAB)
_FROM_LMS = np.linalg.inv(_TO_LMS)

CHROMATIC = 0.05  # OKLab chroma above which a pixel counts as coloured
_HUE_REACH = np.deg2rad(50.0)


def rgb(hex_colour: str) -> FloatArray:
    """Return `#rrggbb` as RGB in 0..1, shape (3,)."""
    return np.array([int(hex_colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32) / 255


def to_oklab(srgb: FloatArray) -> FloatArray:
    """Turn sRGB in 0..1 (..., 3) into OKLab (..., 3)."""
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T, dtype=np.float32)


def from_oklab(lab: FloatArray) -> FloatArray:
    """Turn OKLab (..., 3) into sRGB in 0..1 (..., 3), clipped."""
    linear = np.clip((lab @ _FROM_LAB.T) ** 3 @ _FROM_LMS.T, 0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(srgb, dtype=np.float32)


def _angle(hue: FloatArray, centre: float) -> FloatArray:
    return np.asarray((hue - centre + np.pi) % (2 * np.pi) - np.pi, dtype=np.float32)


def dominant_hue(lab: FloatArray, weight: FloatArray) -> tuple[float, float] | None:
    """Return the hue (radians) most of a picture has and the share of its area near it, or None if it is colourless.

    lab: (H, W, 3), weight: (H, W) the picture's opacity.
    """
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    hue = np.arctan2(lab[..., 2], lab[..., 1])
    coloured = weight * (chroma > CHROMATIC)
    if coloured.sum() < 0.15 * weight.sum():
        return None
    bins, edges = np.histogram(hue, bins=36, range=(-np.pi, np.pi), weights=coloured * chroma)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    centre = float(edges[int(smooth.argmax())] + np.pi / 36)
    near = np.abs(_angle(hue, centre)) < _HUE_REACH
    return centre, float((coloured * near).sum() / weight.sum())


def recolour(rgba: NDArray[np.uint8], colour: str) -> NDArray[np.uint8]:
    """Give the parts of a picture that have its dominant hue the named colour, keeping its shading.

    rgba: (H, W, 4), opacity not multiplied in. A colourless picture comes back as it was.
    """
    lab = to_oklab(rgba[..., :3].astype(np.float32) / 255)
    alpha = rgba[..., 3].astype(np.float32) / 255
    found = dominant_hue(lab, alpha)
    if found is None:
        return rgba
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    offset = _angle(np.arctan2(lab[..., 2], lab[..., 1]), found[0])
    mask = np.clip((_HUE_REACH * 1.2 - np.abs(offset)) / (_HUE_REACH * 0.4), 0, 1)
    mask = mask * np.clip((chroma - 0.02) / 0.04, 0, 1)
    area = alpha * mask
    target = to_oklab(rgb(PALETTE[colour]))
    light = float((lab[..., 0] * area).sum() / area.sum())
    mean_chroma = max(float((chroma * area).sum() / area.sum()), 0.08)
    new_chroma = np.minimum(chroma / mean_chroma, 1.35) * np.hypot(target[1], target[2])
    new_hue = np.arctan2(target[2], target[1]) + 0.35 * offset
    shade = (lab[..., 0] - light) * (0.75 if colour in ("black", "white") else 1.0)
    painted = np.stack([target[0] + shade, new_chroma * np.cos(new_hue), new_chroma * np.sin(new_hue)], axis=-1)
    mixed = from_oklab(lab + (painted.astype(np.float32) - lab) * mask[..., None])
    return np.concatenate([(mixed * 255).round().astype(np.uint8), rgba[..., 3:]], axis=-1)


def natural_colour(rgba: NDArray[np.uint8]) -> str | None:
    """Name the colour of a picture of a thing if one colour covers most of it."""
    lab = to_oklab(rgba[..., :3].astype(np.float32) / 255)
    alpha = rgba[..., 3].astype(np.float32) / 255
    names = list(PALETTE)
    anchors = np.stack([to_oklab(rgb(PALETTE[name])) for name in names])
    distance = ((lab[:, :, None, :] - anchors) ** 2 @ np.array([0.4, 1, 1], dtype=np.float32)).argmin(axis=-1)
    shares = np.bincount(distance.ravel(), weights=alpha.ravel(), minlength=len(names)) / alpha.sum()
    best = int(shares.argmax())
    return names[best] if shares[best] > 0.5 else None
