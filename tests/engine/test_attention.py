"""Sliced attention is attention."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.nn import functional

from sfumato.engine.attention import CpuAttention, sliced_attention


def test_sliced_attention_is_scaled_dot_product_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.engine.attention.SCORES_PER_SLICE", 70)
    q, k, v = torch.randn(2, 3, 33, 8), torch.randn(2, 3, 20, 8), torch.randn(2, 3, 20, 8)
    torch.testing.assert_close(sliced_attention(q, k, v), functional.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("smallest", [1, 10**9])
def test_the_processor_does_what_diffusers_own_does(
    cross: bool, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfumato.engine.attention.SMALLEST_SLICED", smallest)
    layer = Attention(32, cross_attention_dim=24 if cross else None, heads=4, dim_head=8, processor=AttnProcessor2_0())
    x, context = torch.randn(2, 40, 32), torch.randn(2, 7, 24) if cross else None
    expected = layer(x, encoder_hidden_states=context)
    layer.set_processor(CpuAttention())
    torch.testing.assert_close(layer(x, encoder_hidden_states=context), expected, rtol=1e-4, atol=1e-5)


def test_the_processor_serves_the_autoencoders_attention_over_pictures() -> None:
    layer = Attention(
        32, heads=1, dim_head=32, norm_num_groups=8, residual_connection=True, bias=True,
        _from_deprecated_attn_block=True, rescale_output_factor=2.0, processor=AttnProcessor2_0(),
    )  # fmt: skip
    x = torch.randn(2, 32, 6, 6)
    expected = layer(x)
    layer.set_processor(CpuAttention())
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
