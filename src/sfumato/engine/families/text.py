"""Text encoders of the families: CLIP's text transformer and the small BERT of the built-in model."""

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn

from sfumato.core.errors import ModelLoadFailed
from sfumato.engine.prompt.encode import Injection, TextStates

CLIP_CHUNK_TOKENS = 75
"""Content tokens per pass: 77 with start and end, the length CLIP and the built-in model were trained at."""

OPEN_CLIP_PAD = 0
"""What OpenCLIP fills prompts up with: its activation, gelu and not quick_gelu, tells its networks from OpenAI's."""

_START, _END = "<|startoftext|>", "<|endoftext|>"
_CLIP_MERGES = 49152 - 256 - 2
"""CLIP's vocabulary has 49,408 entries: twice 256 bytes, these merges, and two marks."""


class ClipText:
    """CLIP's text transformer (Radford et al. 2021), its states after the final norm.

    Shorter prompts are filled up with EOS, for OpenCLIP's networks (Stable Diffusion 2) with token 0, "!".
    """

    chunk_tokens = CLIP_CHUNK_TOKENS
    keeps_mean = True

    def __init__(self, network: Any, tokenizer: Tokenizer) -> None:
        self.network = network
        self._tokenizer = tokenizer
        self.networks: tuple[Any, ...] = (network,)
        self.start_token = _token_id(tokenizer, _START)
        self.end_token = _token_id(tokenizer, _END)
        self.pad_token = OPEN_CLIP_PAD if network.config.hidden_act == "gelu" else self.end_token
        self.comma_token = _token_id(tokenizer, ",</w>")
        self.embedding_widths: tuple[int, ...] = (int(network.config.hidden_size),)

    def tokenize(self, text: str) -> list[int]:
        """Return BPE token ids, lower-cased, without start and end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, tokens: Tensor, skip_layers: int = 0, injections: Sequence[Injection] = ()) -> TextStates:
        """Return the hidden states of the last layer, or of one `skip_layers` before it, under the final norm."""
        with injected(self.network.get_input_embeddings(), injections):
            output = self.network(input_ids=tokens.to(self.network.device), output_hidden_states=skip_layers > 0)
        if not skip_layers:
            return TextStates(output.last_hidden_state)
        hidden = output.hidden_states[-1 - min(skip_layers, len(output.hidden_states) - 2)]
        return TextStates(self.network.final_layer_norm(hidden))


class BertText:
    """A small BERT (all-MiniLM-L6-v2); states of padding are zero, so that unused places say nothing."""

    chunk_tokens = CLIP_CHUNK_TOKENS
    keeps_mean = False  # its states have a mean near 0, and a ratio of such means is noise
    embedding_widths: tuple[int, ...] = ()

    def __init__(self, network: Any, tokenizer: Tokenizer) -> None:
        self.network = network
        self._tokenizer = tokenizer
        self.networks = (network,)
        self.start_token = _token_id(tokenizer, "[CLS]")
        self.end_token = _token_id(tokenizer, "[SEP]")
        self.pad_token = _token_id(tokenizer, "[PAD]")
        self.comma_token = _token_id(tokenizer, ",")

    def tokenize(self, text: str) -> list[int]:
        """Return WordPiece token ids, lower-cased, without start and end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, tokens: Tensor, skip_layers: int = 0, injections: Sequence[Injection] = ()) -> TextStates:
        """Return the last hidden states, zero where the token is padding; it was trained on no other layer's."""
        tokens = tokens.to(self.network.device)
        mask = tokens != self.pad_token
        states: Tensor = self.network(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        silence = torch.zeros((), dtype=states.dtype, device=states.device)
        return TextStates(torch.where(mask.unsqueeze(-1), states, silence))


@contextmanager
def injected(table: nn.Module, injections: Sequence[Injection]) -> Iterator[None]:
    """Have a table of token embeddings answer with these vectors in their places, for the length of a block."""

    def replace(_table: nn.Module, _tokens: object, looked_up: Tensor) -> Tensor:
        for each in injections:
            looked_up[each.row, each.place] = each.vector[looked_up.shape[-1]]
        return looked_up

    if not injections:
        yield
        return
    handle = table.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read a tokenizer from a diffusers `tokenizer/` folder: `tokenizer.json`, or CLIP's vocabulary and merges."""
    if (folder / "tokenizer.json").exists():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    if not (folder / "vocab.json").exists():
        raise ModelLoadFailed(f"No tokenizer.json or vocab.json in {folder}.")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    return clip_tokenizer(vocabulary, _merges(lines))


def clip_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """Build CLIP's lower-casing byte-level BPE tokenizer (Radford et al. 2021, Sec. 2.4)."""
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token=_END, end_of_word_suffix="</w>", fuse_unk=False)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.add_special_tokens([_START, _END])
    return tokenizer


def shipped_clip_tokenizer() -> Tokenizer:
    """Build CLIP's tokenizer from the merges that come with this package, for checkpoints in a single file."""
    packed = resources.files("sfumato.engine.families") / "data" / "clip_bpe_merges.txt.gz"
    lines = gzip.decompress(packed.read_bytes()).decode("utf-8").splitlines()
    merges = _merges(lines)[:_CLIP_MERGES]
    symbols = _byte_symbols()
    words = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in merges), _START, _END]
    return clip_tokenizer({word: number for number, word in enumerate(words)}, merges)


def _merges(lines: list[str]) -> list[tuple[str, str]]:
    pairs = (line.split() for line in lines[1:])  # the first line names the format's version
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _byte_symbols() -> list[str]:
    """Return the characters that stand for single bytes, in the order of CLIP's vocabulary: printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(256, 256 + others))]


def _token_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ModelLoadFailed(f"The tokenizer has no token {token!r}.")
    return int(found)
