"""The header of a .safetensors file: its tensors' names and shapes, without reading a weight.

Format: 8 bytes little-endian length, that many bytes of JSON, then the tensors' bytes (safetensors README, "Format").
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sfumato.core.errors import ModelLoadFailed

_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")
_METADATA = "__metadata__"


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Header:
    """Shapes by tensor name, and the free-form metadata of the file."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]

    def has_prefix(self, prefix: str) -> bool:
        """Say whether any tensor's name starts so."""
        return any(name.startswith(prefix) for name in self.shapes)


def read_header(path: Path) -> Header:
    """Read a file's header; raise `ModelLoadFailed` when it is not a whole safetensors file."""
    try:
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            start = file.read(_LENGTH.size)
            if start.startswith(_PICKLE_STARTS):
                raise _damaged(path, "it is a pickle under another name, which can run code")
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            if not 2 <= length <= min(_MAX_HEADER_BYTES, size_bytes - _LENGTH.size):
                raise _damaged(path, "its header has no sensible length")
            raw = file.read(length)
    except OSError as error:
        raise _damaged(path, error.strerror or type(error).__name__) from None
    return _decode(path, raw, size_bytes - _LENGTH.size - length)


def _decode(path: Path, raw: bytes, payload_bytes: int) -> Header:
    try:
        entries = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        metadata = entries.pop(_METADATA, None)
        tensors = {name: msgspec.json.decode(entry, type=_Tensor) for name, entry in entries.items()}
        notes = msgspec.json.decode(metadata, type=dict[str, str]) if metadata else {}
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise _damaged(path, "its header is not valid") from None
    if not tensors:
        raise _damaged(path, "it holds no tensors")
    end = max(tensor.data_offsets[1] for tensor in tensors.values())
    if end > payload_bytes:
        raise _damaged(path, f"it ends {end - payload_bytes} bytes too early, as after a broken download")
    return Header(shapes={name: tensor.shape for name, tensor in tensors.items()}, metadata=notes)


def _damaged(path: Path, reason: str) -> ModelLoadFailed:
    return ModelLoadFailed(
        f"{path.name} cannot be read as a safetensors file: {reason}.", hint="Download or copy the file again."
    )
