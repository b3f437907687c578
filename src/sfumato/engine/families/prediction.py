"""What a single file's network predicts: told by the file, or measured, as tensors of both kinds look the same."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.engine.conditioning import Conditioning
from sfumato.engine.families.base import Denoiser, Prediction
from sfumato.engine.families.weights import read_metadata

_VELOCITY_MARK, _ZERO_TERMINAL_MARK = "v_pred", "ztsnr"
_METADATA = "modelspec.prediction_type"
_PARAMETERIZATION = re.compile(r"""^\s*parameterization:\s*["']?(v|eps)["']?\s*$""", re.MULTILINE)
_MAX_NOTES_BYTES = 100_000
_LIKE_NOISE = 0.5


@dataclass(frozen=True)
class Told:
    """What a file says of its training; `schedule` holds entries of a scheduler's configuration."""

    prediction: Prediction | None = None
    schedule: dict[str, Any] = field(default_factory=dict)


def told_prediction(path: Path, tensors: dict[str, Tensor]) -> Told:
    """Read the marks that trainers leave: empty tensors, metadata, or a `.yaml` file of the same name beside it."""
    schedule = {"rescale_betas_zero_snr": True} if _ZERO_TERMINAL_MARK in tensors else {}
    if _VELOCITY_MARK in tensors:
        return Told(Prediction.VELOCITY, schedule)
    words = {"v": Prediction.VELOCITY, "v_prediction": Prediction.VELOCITY}
    words |= {"eps": Prediction.EPSILON, "epsilon": Prediction.EPSILON}
    noted = read_metadata(path).get(_METADATA, "") or _noted_beside(path.with_suffix(".yaml"))
    return Told(words.get(noted), schedule)


def measured_prediction(denoiser: Denoiser, conditioning: Conditioning, shape: tuple[int, int, int]) -> Prediction:
    """Ask the network about pure noise: one that predicts the noise gives it back, one that predicts velocity
    (Salimans and Ho 2022) gives the negative of a blurry picture, which has nothing in common with it.
    """
    noise = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([denoiser.levels.sigma_max], dtype=torch.float64)
    output = denoiser.output(noise * (sigma.float().square() + 1).sqrt(), sigma, Conditioning.stack([conditioning]))
    alike = torch.nn.functional.cosine_similarity(output.cpu().flatten(), noise.flatten(), dim=0)
    return Prediction.EPSILON if float(alike) > _LIKE_NOISE else Prediction.VELOCITY


def _noted_beside(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _PARAMETERIZATION.search(file.read(_MAX_NOTES_BYTES))
    except OSError:
        return ""
    return found[1] if found else ""
