"""What the server process and an engine process say to each other, and how it is framed on a pipe.

A frame is a 4-byte big-endian length and that many bytes of msgpack. Each message is a tagged struct, so both ends
decode straight into these types and refuse anything else.
"""

import struct
from typing import BinaryIO

import msgspec

from sfumato.core.requests import GenerationRequest

MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all messages."""


class LoadModel(Message, frozen=True):
    """Make this model known to the engine under `name`; `preload` reads its weights now, not at first use."""

    name: str
    family: str
    location: str
    preload: bool = False


class Generate(Message, frozen=True):
    """Make the pictures of a job; events about it carry its `job_id`.

    `pictures` are the stored pictures that the request names, as files in a format that Pillow reads. `vae_location`
    is where the VAE lies that stands in for the model's own; empty for its own. `adapters` and `embeddings` say where
    the files lie of the LoRAs and embeddings that the request names; the engine opens no others.
    """

    job_id: str
    request: GenerationRequest
    pictures: dict[str, bytes] = {}
    vae_location: str = ""
    adapters: dict[str, str] = {}
    embeddings: dict[str, str] = {}


class Cancel(Message, frozen=True):
    """Drop what is left of a job at the next step.

    With `keep_partial` the pictures in progress are decoded as they are, as AUTOMATIC1111's interrupt does, and
    pictures not begun are dropped; the job then ends in `Finished`.
    """

    job_id: str
    keep_partial: bool = False


class Shutdown(Message, frozen=True):
    """Stop at once; jobs in progress are abandoned."""


ToEngine = LoadModel | Generate | Cancel | Shutdown


class Ready(Message, frozen=True):
    """The engine has started and takes jobs. `precision` names the number format of the networks."""

    device: str
    precision: str
    memory_total_bytes: int


class ModelLoaded(Message, frozen=True):
    """A model's weights are in memory after `seconds`."""

    name: str
    seconds: float


class Started(Message, frozen=True):
    """A job's first forward pass is about to run."""

    job_id: str


class Step(Message, frozen=True):
    """One picture has completed `step` of `steps`."""

    job_id: str
    index: int
    step: int
    steps: int


class ImageReady(Message, frozen=True):
    """A finished picture: `pixels` are height x width x 3 bytes, RGB, rows from the top."""

    job_id: str
    index: int
    width: int
    height: int
    pixels: bytes
    is_partial: bool = False


class Finished(Message, frozen=True):
    """All pictures of a job that will come have been sent.

    Seconds by phase: `encode_seconds` text, `denoise_seconds` from first step to last, `decode_seconds` latents to
    pixels; `notes` are sentences for the user about what was done otherwise than asked.
    """

    job_id: str
    encode_seconds: float = 0.0
    denoise_seconds: float = 0.0
    decode_seconds: float = 0.0
    notes: tuple[str, ...] = ()


class Failed(Message, frozen=True):
    """A job cannot be finished; `code` is one of `core.errors`."""

    job_id: str
    code: str
    message: str


class Canceled(Message, frozen=True):
    """A job was dropped as asked."""

    job_id: str


class TurnStats(Message, frozen=True):
    """What one turn of the denoise loop did: `rows` network rows of `images` pictures of `jobs` jobs in `seconds`.

    `overhead_seconds` is the part of the turn spent outside the network.
    """

    rows: int
    images: int
    jobs: int
    seconds: float
    overhead_seconds: float


FromEngine = Ready | ModelLoaded | Started | Step | ImageReady | Finished | Failed | Canceled | TurnStats

_encoder = msgspec.msgpack.Encoder()
to_engine_decoder = msgspec.msgpack.Decoder(ToEngine)
from_engine_decoder = msgspec.msgpack.Decoder(FromEngine)


def encode_frame(message: ToEngine | FromEngine) -> bytes:
    """Return the message as one frame."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def frame_length(header: bytes) -> int:
    """Return the body length a 4-byte frame header announces; raise `ValueError` over `MAX_FRAME_BYTES`."""
    (length,) = _LENGTH.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    return int(length)


def read_frame(stream: BinaryIO) -> bytes | None:
    """Read one frame's body from a blocking stream; None at its end, also in mid-frame."""
    header = stream.read(_LENGTH.size)
    if len(header) < _LENGTH.size:
        return None
    length = frame_length(header)
    body = stream.read(length)
    return body if len(body) == length else None
