"""What the trainings share: the work folder, the device, the clock, checkpoints."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

DEFAULT_WORK = Path(".train")


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(where: torch.device) -> AbstractContextManager[Any]:
    """Return bfloat16 autocast for a device."""
    return torch.autocast(where.type, dtype=torch.bfloat16)


def save_atomically(state: object, path: Path) -> None:
    """Write a checkpoint so that a reader never sees half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


class Budget:
    """A training's time: `spent` seconds of `minutes`, carried over restarts."""

    def __init__(self, minutes: float, spent_seconds: float = 0.0) -> None:
        self.seconds = minutes * 60
        self._start = time.monotonic() - spent_seconds

    @property
    def spent_seconds(self) -> float:
        """Seconds trained so far, all runs together."""
        return time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """Share of the budget spent, 0..1."""
        return min(1.0, self.spent_seconds / self.seconds)


def learning_rate(progress: float, step: int, warmup_steps: int = 100, flat: float = 0.3) -> float:
    """Return the rate in 0..1: linear warm-up, then flat, then linear decay to (nearly) nothing at the budget's end."""
    return min(1.0, (step + 1) / warmup_steps) * min(1.0, max(0.0, (1 - progress) / (1 - flat)) + 0.01)
