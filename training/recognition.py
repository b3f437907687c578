"""What a picture shows: its subject cut out of the plain background, and a judge that names it.

The judge is a small convolutional network. It learnt from augmented renders of the icon sets only
(`training.judge`), never from a generated picture.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from training.colours import FloatArray, to_oklab

Picture = NDArray[np.uint8]

SIDE = 64
MARGIN = 0.06  # of the subject's longer side, left round it on each side
LEAST_AREA = 0.01
_STRAY = 0.01  # of the subject's mass at each edge does not count: specks
_WIDTHS = (32, 64, 128, 192)


def border(picture: Picture) -> FloatArray:
    """Return the median colour, in 0..1, of a picture's outermost pixels: its background."""
    edges = (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:])
    edge = np.concatenate([part.reshape(-1, 3) for part in edges])
    return np.asarray(np.median(edge, axis=0), dtype=np.float32) / 255


def foreground(picture: Picture, background: FloatArray) -> FloatArray:
    """Return how far each pixel (H, W) stands out from the background, 0..1."""
    distance = np.linalg.norm(to_oklab(picture.astype(np.float32) / 255) - to_oklab(background), axis=-1)
    return np.asarray(np.clip((distance - 0.05) / 0.05, 0, 1), dtype=np.float32)


def cut_out(picture: Picture, background: FloatArray) -> Picture | None:
    """Return the subject as (SIDE, SIDE, 3), whatever its size and place; None where nothing stands out.

    What the square takes from beyond the picture has the background's colour.
    """
    mask = foreground(picture, background)
    if mask.mean() < LEAST_AREA:
        return None
    (top, bottom), (left, right) = _extent(mask.sum(axis=1)), _extent(mask.sum(axis=0))
    half = max(bottom - top, right - left) * (0.5 + MARGIN)
    frame = math.ceil(half)  # enough for any subject, wherever it is
    framed = np.empty((picture.shape[0] + 2 * frame, picture.shape[1] + 2 * frame, 3), dtype=np.uint8)
    framed[:] = np.round(background * 255)
    framed[frame:-frame, frame:-frame] = picture
    x, y = (left + right) / 2 + frame, (top + bottom) / 2 + frame
    box = (x - half, y - half, x + half, y + half)
    return np.asarray(Image.fromarray(framed).resize((SIDE, SIDE), Image.Resampling.BOX, box=box))


def _extent(mass: FloatArray) -> tuple[int, int]:
    """Return the range that holds all but a hundredth of the mass at either end."""
    total = np.cumsum(mass) / max(float(mass.sum()), 1e-6)
    first, last = int(np.searchsorted(total, _STRAY)), int(np.searchsorted(total, 1 - _STRAY))
    return first, max(last + 1, first + 1)


def sides(picture: Picture, *, is_stacked: bool) -> tuple[Picture, Picture]:
    """Return the halves of a picture of two things: the upper and the lower, or the left and the right."""
    middle = picture.shape[0 if is_stacked else 1] // 2
    return (picture[:middle], picture[middle:]) if is_stacked else (picture[:, :middle], picture[:, middle:])


class _Block(nn.Module):
    """A residual block that halves the sides (He et al. 2016)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, bias=False)
        self.first_norm, self.second_norm = nn.BatchNorm2d(after), nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.shortcut(functional.avg_pool2d(x, 2)) + self.second_norm(self.second(inner)))


class Classifier(nn.Module):
    """Subjects (B, 3, SIDE, SIDE) in -1..1 to one score a thing (B, things)."""

    def __init__(self, things: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _WIDTHS[0], 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(_WIDTHS[0])
        self.blocks = nn.Sequential(*map(_Block, _WIDTHS, _WIDTHS[1:]))
        self.head = nn.Linear(_WIDTHS[-1], things)

    def forward(self, x: Tensor) -> Tensor:
        features = self.blocks(functional.relu(self.stem_norm(self.stem(x))))
        scores: Tensor = self.head(features.mean(dim=(2, 3)))
        return scores


class Judge:
    """Names the subjects of pictures."""

    def __init__(self, network: Classifier, names: list[str]) -> None:
        self.names = names
        self._network = network.eval()

    @classmethod
    def load(cls, path: Path) -> Judge:
        """Read what `training.judge` wrote."""
        saved = torch.load(path, map_location="cpu")
        network = Classifier(len(saved["names"]))
        network.load_state_dict(saved["model"])
        return cls(network, saved["names"])

    def best(self, picture: Picture, count: int = 5) -> list[str]:
        """Return the `count` likeliest names of the one subject of a picture (H, W, 3), likeliest first."""
        return self._best(cut_out(picture, border(picture)), count)

    def best_of_sides(self, picture: Picture, *, is_stacked: bool, count: int = 5) -> list[list[str]]:
        """Judge either half of a picture of two things, against the background of the whole."""
        background = border(picture)
        return [self._best(cut_out(side, background), count) for side in sides(picture, is_stacked=is_stacked)]

    @torch.no_grad()
    def _best(self, subject: Picture | None, count: int) -> list[str]:
        if subject is None:
            return []
        scores = self._network(torch.from_numpy(subject.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1)[0]
        return [self.names[place] for place in scores.argsort(descending=True)[:count].tolist()]
