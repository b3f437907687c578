"""Drawing through the service's own engine, many prompts together.

The one module of the recipe that knows the engine. It knows nothing of what the pictures should show.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.core.requests import GenerationRequest
from sfumato.engine.denoising import DenoiseLoop
from sfumato.engine.device import Device
from sfumato.engine.families.loading import load_model
from sfumato.engine.pipeline import txt2img

STEPS = 20
GUIDANCE = 5.0
SIDE = 256
SAMPLER = GenerationRequest(prompt="", model="").sampler  # what the service takes when a client names none


class Easel:
    """An exported model as the service loads it, on the device and in the precision the service chooses."""

    def __init__(self, folder: Path, sampler: str = SAMPLER) -> None:
        self.device = Device.choose()
        self.sampler = sampler
        self._folder = folder
        self._model = load_model(folder.name, str(folder), self.device)

    def draw(self, prompts: Sequence[str], seed: int = 0) -> list[NDArray[np.uint8]]:
        """Return one picture (SIDE, SIDE, 3) a prompt; the n-th has the seed `seed + n`."""
        loop = DenoiseLoop()
        for number, prompt in enumerate(prompts):
            for picture in txt2img(str(number), self._request(prompt, seed + number), self._model):
                loop.add(picture)
        drawn: dict[int, NDArray[np.uint8]] = {}
        while turn := loop.turn():
            for _, error in turn.failed:
                raise error
            for picture, latents in turn.ended:
                drawn[int(picture.job_id)] = self._model.codec.decode(latents.unsqueeze(0))[0].numpy()
        return [drawn[number] for number in range(len(prompts))]

    def load_seconds(self) -> float:
        """Return how long the weights take to load, their files being in the page cache, libraries imported."""
        return _median_seconds(lambda: load_model("again", str(self._folder), self.device))

    def picture_seconds(self) -> float:
        """Return how long one picture takes, alone, the networks being warm."""
        return _median_seconds(lambda: self.draw(["a red apple"]))

    def _request(self, prompt: str, seed: int) -> GenerationRequest:
        return GenerationRequest(
            prompt=prompt,
            model=self._model.name,
            width=SIDE,
            height=SIDE,
            steps=STEPS,
            guidance_scale=GUIDANCE,
            sampler=self.sampler,
            seed=seed,
        ).validated()


def _median_seconds(act: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
