"""What everyone may know of a model without reading its weights."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Family(StrEnum):
    """The network family a model's weights belong to; it decides which code of the engine loads them."""

    BUILTIN = "builtin"
    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    SDXL_REFINER = "sdxl-refiner"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """An installed model.

    `name` is unique and is what a `GenerationRequest` carries; `title` is AUTOMATIC1111's `name.ext [hash10]`;
    `location` is a folder in diffusers layout, a `.safetensors` file, or a Hugging Face id; `sha256` is of the
    file (None for folders and until computed).
    """

    id: UUID
    name: str
    title: str
    family: Family
    location: str
    sha256: str | None = None
    default_width: int = 512
    default_height: int = 512
    default_steps: int = 20
    default_guidance_scale: float = 7.0

    @property
    def short_hash(self) -> str | None:
        """The first 10 hex digits of the sha256, as infotexts give it."""
        return self.sha256[:10] if self.sha256 else None


@dataclass(frozen=True, kw_only=True)
class VaeInfo:
    """An installed autoencoder that can stand in for a model's own; `name` is its file's, as AUTOMATIC1111 has it."""

    name: str
    location: str
    sha256: str | None = None

    @property
    def short_hash(self) -> str | None:
        """The first 10 hex digits of the sha256, as infotexts give it."""
        return self.sha256[:10] if self.sha256 else None
