"""What a LoRA adds to one layer: delta(x) beside W x, for linear layers and convolutions.

LoRA: Hu et al. 2022, Eq. 3, scaled by alpha / rank. LoHa and LoKr: Yeh et al. 2024 (LyCORIS), Sec. 3, which are
computed once as a whole weight. Low-rank changes of several files to one layer are stacked into one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Factors = Mapping[str, Tensor]
"""A layer's tensors in a file, by leaf name: `down`, `up`, `alpha`, `hada_w1_a` and so on."""


class Misfit(Exception):
    """Factors that are incomplete, of a kind not known, or not of the layer's shape."""


@dataclass(frozen=True)
class LowRank:
    """up (down x): down (rank, in, ...) and up (out, rank, ...), kernels for convolutions; the strength is in `up`."""

    down: Tensor
    up: Tensor

    def of(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what is added to the layer's output for input x."""
        if isinstance(layer, nn.Conv2d):
            return functional.conv2d(_convolved(layer, x, self.down), self.up)
        return functional.linear(functional.linear(x, self.down), self.up)


@dataclass(frozen=True)
class Whole:
    """A change of the layer's whole weight, and of its bias if there is one."""

    weight: Tensor | None
    bias: Tensor | None = None

    def of(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what is added to the layer's output for input x."""
        weight = self.weight
        if weight is None:
            assert self.bias is not None
            return self.bias.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) else self.bias
        if isinstance(layer, nn.Conv2d):
            return _convolved(layer, x, weight, self.bias)
        return functional.linear(x, weight, self.bias)


Delta = LowRank | Whole


def delta_of(layer: Any, factors: Factors, strength: float, rank: int | None = None) -> Delta:
    """Return a layer's change by a file's factors; `rank` keeps only the first ones of a LoRA.

    Raises `Misfit`.
    """
    shape = tuple(layer.weight.shape)
    factors = {name: tensor.float() for name, tensor in factors.items()}
    if "magnitude" in factors:
        raise Misfit("it is a DoRA, a kind not carried out")
    try:
        if "up" in factors:
            return _low_rank(shape, factors, strength, rank)
        weight = _whole_weight(factors)
        bias = factors.get("diff_b")
        if weight is None and bias is None:
            raise Misfit(f"of its tensors only {', '.join(sorted(factors))} are there")
        return Whole(
            None if weight is None else _shaped(weight, shape) * strength, None if bias is None else bias * strength
        )
    except KeyError as error:
        raise Misfit(f"{error.args[0]} is missing") from error
    except RuntimeError as error:  # a product of matrices that do not fit each other
        raise Misfit("its factors do not fit each other") from error


def stacked(deltas: Sequence[Delta]) -> list[Delta]:
    """Return the same changes in as few as there can be: all low-rank ones as one."""
    low = [delta for delta in deltas if isinstance(delta, LowRank)]
    others: list[Delta] = [delta for delta in deltas if not isinstance(delta, LowRank)]
    if not low:
        return others
    return [LowRank(torch.cat([delta.down for delta in low]), torch.cat([delta.up for delta in low], dim=1)), *others]


def _convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    settings: Any = (layer.stride, layer.padding, layer.dilation)
    return functional.conv2d(x, weight, bias, *settings)


def _low_rank(shape: tuple[int, ...], factors: Factors, strength: float, rank: int | None) -> LowRank:
    down, up = factors["down"], factors["up"]
    if "mid" in factors:  # a kernel between two 1x1 convolutions: one with the first
        down = torch.einsum("mrhw,ri->mihw", factors["mid"], down.flatten(1))
    full_rank = up.shape[1]
    scale = strength * _alpha(factors, full_rank) / full_rank
    down, up = _kernels(down, len(shape)), _kernels(up, len(shape))
    if down.shape[0] != full_rank or (up.shape[0], *down.shape[1:]) != shape:
        raise Misfit(f"it changes a layer of {_written((up.shape[0], *down.shape[1:]))}, not of {_written(shape)}")
    return LowRank(down[:rank], up[:, :rank] * scale)


def _kernels(tensor: Tensor, dimensions: int) -> Tensor:
    """Bring a matrix to a 1x1 kernel or back, as the layer needs it."""
    if dimensions == 4 and tensor.ndim == 2:
        return tensor[:, :, None, None]
    if dimensions == 2 and tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
        return tensor.flatten(1)
    return tensor


def _whole_weight(factors: Factors) -> Tensor | None:
    if "diff" in factors:
        return factors["diff"]
    if "hada_w1_a" in factors:
        left, right = _hadamard_half(factors, 1), _hadamard_half(factors, 2)
        rank = factors["hada_w1_b"].shape[0]
        return left * right * (_alpha(factors, rank) / rank)
    if any(name.startswith("lokr_w1") for name in factors):
        return _kronecker(factors)
    return None


def _hadamard_half(factors: Factors, number: int) -> Tensor:
    a, b = factors[f"hada_w{number}_a"], factors[f"hada_w{number}_b"]
    core = factors.get(f"hada_t{number}")
    return a @ b if core is None else torch.einsum("ijhw,io,jn->onhw", core, a, b)


def _kronecker(factors: Factors) -> Tensor:
    ranks = [factors[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in factors]
    first = factors["lokr_w1"] if "lokr_w1" in factors else factors["lokr_w1_a"] @ factors["lokr_w1_b"]
    if "lokr_w2" in factors:
        second = factors["lokr_w2"]
    elif "lokr_t2" in factors:
        second = torch.einsum("ijhw,io,jn->onhw", factors["lokr_t2"], factors["lokr_w2_a"], factors["lokr_w2_b"])
    else:
        second = factors["lokr_w2_a"] @ factors["lokr_w2_b"].flatten(1)
    product = torch.kron(first[:, :, None, None] if second.ndim == 4 else first, second.contiguous())
    return product * (_alpha(factors, ranks[-1]) / ranks[-1]) if ranks else product


def _shaped(weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a weight in the layer's shape; factors of convolutions come as matrices (out, in * height * width)."""
    if weight.shape[0] != shape[0] or weight.numel() != torch.Size(shape).numel():
        raise Misfit(f"it changes a layer of {_written(tuple(weight.shape))}, not of {_written(shape)}")
    return weight.reshape(shape)


def _alpha(factors: Factors, rank: int) -> float:
    return float(factors["alpha"]) if "alpha" in factors else float(rank)


def _written(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
