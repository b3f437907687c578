"""Whether a picture, drawn or composed, shows what was asked for. Knows neither prompts nor the engine."""

from __future__ import annotations

import numpy as np

from training.colours import BACKGROUNDS, PALETTE, rgb, to_oklab
from training.recognition import Judge, Picture, border

BACKGROUND_DISTANCE = 0.1  # in OKLab; about the distance from "light blue" to "blue", halved
SUBJECT_DISTANCE = 0.08  # in OKLab, from the background
SUBJECT_SHARE = 0.2


def has_background(picture: Picture, colour: str) -> bool:
    """Say whether the background is near the named colour and nearer than to any other."""
    names = list(BACKGROUNDS)
    anchors = np.stack([to_oklab(rgb(BACKGROUNDS[name])) for name in names])
    distances = np.linalg.norm(anchors - to_oklab(border(picture)), axis=1)
    return names[int(distances.argmin())] == colour and float(distances.min()) < BACKGROUND_DISTANCE


def has_subject_colour(picture: Picture, colour: str) -> bool:
    """Say whether the named colour is one of the two commonest of what stands out from the background."""
    lab = to_oklab(picture.reshape(-1, 3).astype(np.float32) / 255)
    subject = lab[np.linalg.norm(lab - to_oklab(border(picture)), axis=1) > SUBJECT_DISTANCE]
    if len(subject) < 0.05 * len(lab):
        return False
    names = list(PALETTE)
    anchors = np.stack([to_oklab(rgb(PALETTE[name])) for name in names])
    weighted = (subject[:, None] - anchors) ** 2 @ np.array([0.4, 1, 1], dtype=np.float32)
    shares = np.bincount(weighted.argmin(axis=1), minlength=len(names)) / len(subject)
    asked = names.index(colour)
    return bool(asked in shares.argsort()[-2:] and shares[asked] > SUBJECT_SHARE)


def shows_both(picture: Picture, things: tuple[str, ...], judge: Judge, *, is_stacked: bool) -> bool:
    """Say whether each of two things is among the judge's first five of a side of its own, in either order."""
    first, second = things
    one, other = judge.best_of_sides(picture, is_stacked=is_stacked)
    return (first in one and second in other) or (second in one and first in other)
