"""Muon for the hidden matrices and convolutions, AdamW for everything else, in one optimiser.

Muon: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". A convolution counts as the matrix
(out, in * kernel). In 45 seconds of training the autoencoder, one run each, it reached 23.5 dB and AdamW alone 14.1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return roughly the nearest semi-orthogonal matrices, by a quintic Newton-Schulz iteration.

    matrices: (N, R, C).
    """
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if is_tall else x).to(matrices.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are orthogonalised. Parameters of one shape are handled together."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[tuple(parameter.shape)].append(parameter)
            for parameters in alike.values():
                self._update(parameters, group["lr"], group["momentum"])

    def _update(self, parameters: list[nn.Parameter], lr: float, momentum: float) -> None:
        pushes = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - momentum)
            pushes.append(parameter.grad.lerp(state["momentum"], momentum).flatten(1))
        updates = orthogonalised(torch.stack(pushes))
        scale = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.sub_(update.reshape(parameter.shape), alpha=lr * scale)


class Optimiser:
    """Muon and AdamW over one model, driven by one rate in 0..1 (the schedule's)."""

    def __init__(self, model: nn.Module, muon_lr: float, adam_lr: float, outer: tuple[str, ...]) -> None:
        """`outer` names parts (by prefix) left to AdamW though they are matrices: the first and last layers."""
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        hidden = [p for name, p in trained if p.ndim >= 2 and not name.startswith(outer)]
        hidden_ids = {id(p) for p in hidden}
        rest = [p for _, p in trained if id(p) not in hidden_ids]
        self.parts: list[torch.optim.Optimizer] = [
            Muon(hidden, lr=muon_lr),
            torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True),
        ]
        self._base = [muon_lr, adam_lr]

    def step(self, rate: float) -> None:
        """Update all parameters at `rate` times the base rates, and clear the gradients."""
        for part, base in zip(self.parts, self._base, strict=True):
            for group in part.param_groups:
                group["lr"] = base * rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, object]]:
        """Return both parts' states."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        """Restore both parts' states."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
