"""Attention for CPUs, where PyTorch's own is slow in bfloat16.

On CPUs without AMX, `scaled_dot_product_attention` in bfloat16 runs at a third of what oneDNN's matrix products
reach. Sending large attentions through `torch.mm`, a slice of the queries at a time so that the scores stay in
cache, halves their time; small ones stay with the fused kernel (`benchmarks/attention.py` compares the two).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SCORES_PER_SLICE = 2_000_000
SMALLEST_SLICED = 512 * 512
"""Query x key pairs per head from which slicing wins."""


def sliced_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query key^T / sqrt(d)) value; all are (batch, heads, length, d), contiguous or not."""
    batch, heads, length, width = query.shape
    out = torch.empty_like(query)
    rows = max(1, SCORES_PER_SLICE // key.shape[2])
    for b in range(batch):
        for h in range(heads):
            keys = (key[b, h] * width**-0.5).t().contiguous()
            values = value[b, h].contiguous()
            for first in range(0, length, rows):
                part = query[b, h, first : first + rows].contiguous()
                out[b, h, first : first + rows] = torch.mm(torch.mm(part, keys).softmax(-1), values)
    return out


class CpuAttention:
    """A diffusers attention processor, for layers without norms of queries and keys and without added projections."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output, same shape as `hidden_states`: (B, L, D) or (B, C, H, W)."""
        if attention_mask is not None or attn.spatial_norm is not None:
            raise NotImplementedError("attention masks and spatial norms are not part of the families served")
        residual, shape = hidden_states, hidden_states.shape
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            layer(source).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for layer, source in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        sliced = query.shape[2] * key.shape[2] >= SMALLEST_SLICED
        attend = sliced_attention if sliced else functional.scaled_dot_product_attention
        out = attn.to_out[0](attend(query, key, value).transpose(1, 2).flatten(2))
        if len(shape) == 4:
            out = out.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        rescaled: Tensor = out / attn.rescale_output_factor if attn.rescale_output_factor != 1 else out
        return rescaled
