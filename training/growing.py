"""Growing the denoiser: a network trained on small pictures becomes the inner part of one for larger pictures.

The new outermost level, of twice the side, hands the old network the latents averaged by 2 x 2 and enlarges its
answer, so that at first the grown network says about what the old one would (after Karras et al. 2018, "Progressive
growing of GANs"). Averaging halves the noise: the old network's feeling for time is fitted to the timesteps at which
it met as much noise.
"""

from __future__ import annotations

import re

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

_LEVEL = re.compile(r"^(down|up)_blocks\.(\d+)\.")
_FIT_STEPS = 600


def grow(small: UNet2DConditionModel, large: UNet2DConditionModel, alphas_cumprod: Tensor) -> None:
    """Fill `large`, of one level more, so that it answers as `small` does for the latents at half their side."""
    depth = len(small.config.block_out_channels)
    state = large.state_dict()
    for name, tensor in small.state_dict().items():
        state[_inner_name(name, depth)].copy_(tensor)
    outer_down, outer_up = large.down_blocks[0], large.up_blocks[depth]
    for resnet in (*outer_down.resnets, *outer_up.resnets):
        _silence(resnet.conv2)
    for resnet in outer_up.resnets:
        _pass_on(resnet.conv_shortcut)  # the level below comes first, then what skipped it
    _average(outer_down.downsamplers[0].conv)
    _pass_on(large.up_blocks[depth - 1].upsamplers[0].conv)
    _fit_time(small.time_embedding, large, timesteps_at_half_noise(alphas_cumprod))


def timesteps_at_half_noise(alphas_cumprod: Tensor) -> Tensor:
    """Return, for each timestep, the fractional one whose signal-to-noise ratio is four times as large."""
    log_ratio = (alphas_cumprod / (1 - alphas_cumprod)).log()
    wanted = log_ratio + torch.log(torch.tensor(4.0))
    rising = log_ratio.flip(0)
    high = torch.searchsorted(rising, wanted.contiguous()).clamp(1, len(rising) - 1)
    share = ((wanted - rising[high - 1]) / (rising[high] - rising[high - 1])).clamp(0, 1)
    return len(rising) - 1 - (high - 1 + share)


def _inner_name(name: str, depth: int) -> str:
    """Return what a parameter of the small network is called in the large one: its levels lie one further inside."""
    found = _LEVEL.match(name)
    if found is None or found[1] == "up":  # upward blocks count from the inside
        return name
    return name.replace(f"down_blocks.{found[2]}.", f"down_blocks.{int(found[2]) + 1}.", 1)


def _silence(conv: nn.Conv2d) -> None:
    """Make a convolution answer nothing but zeros."""
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _average(conv: nn.Conv2d) -> None:
    """Make a stride-2 convolution (kernel 3, padding 1) the mean of each 2 x 2 cells, channel by channel."""
    _silence(conv)
    for channel in range(conv.out_channels):
        conv.weight.data[channel, channel, 1:, 1:] = 0.25


def _pass_on(conv: nn.Conv2d) -> None:
    """Make a convolution the identity; of a 1 x 1 one with more inputs than outputs, the first inputs come out."""
    _silence(conv)
    nn.init.dirac_(conv.weight)


def _fit_time(taught: nn.Module, model: UNet2DConditionModel, timesteps: Tensor) -> None:
    """Fit the large network's time embedding to the small one's at `timesteps`, one for each of its own."""
    with torch.no_grad():
        own = model.time_proj(torch.arange(len(timesteps)))
        wanted = taught(model.time_proj(timesteps))
    fitted = model.time_embedding
    optimiser = torch.optim.Adam(fitted.parameters(), lr=1e-3)
    for step in range(_FIT_STEPS):
        loss = functional.mse_loss(fitted(own), wanted)
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / _FIT_STEPS)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
