"""Painting only a part of a picture with any sampler."""

from typing import Any

from torch import Tensor

from sfumato.engine.sampling.steps import Estimates, EstimateSteps, Steps


def keeping(steps: Steps | EstimateSteps, original: Tensor, mask: Tensor) -> Any:
    """Give a sampler estimates that are the original's latents wherever the mask is 0, and return such latents.

    original: (C, h, w); mask: (1, h, w) in 0..1, 1 where to paint. The estimate is of the clean picture, so no noise
    of the right level need be laid over the kept part, as Lugmayr et al. 2022 ("RePaint", Eq. 8) do.
    """

    def mended(estimate: Tensor) -> Tensor:
        return original + (estimate - original) * mask

    try:
        ask = next(steps)
        while True:
            answer: Any = yield ask
            if isinstance(answer, Estimates):
                answer = Estimates(mended(answer.guided), mended(answer.unguided))
            else:
                answer = mended(answer)
            ask = steps.send(answer)
    except StopIteration as stop:
        return mended(stop.value)
