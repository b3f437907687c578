"""What a request asks for beyond noise and a prompt: a picture to begin from, a mask, a larger second pass."""

from dataclasses import dataclass
from enum import StrEnum

LATENT_UPSCALERS = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
PIXEL_UPSCALERS = ("Lanczos", "Nearest")


class ResizeMode(StrEnum):
    """How a source picture of another shape comes to the size asked for.

    STRETCH ignores its proportions, CROP covers the size and cuts the sides off, FILL fits into it and stretches the
    edges outwards, LATENT stretches its latents instead of its pixels.
    """

    STRETCH = "stretch"
    CROP = "crop"
    FILL = "fill"
    LATENT = "latent"


class MaskedContent(StrEnum):
    """What is under the mask when inpainting begins: blurred surroundings, the picture itself, noise, or zeros."""

    FILL = "fill"
    ORIGINAL = "original"
    NOISE = "latent noise"
    NOTHING = "latent nothing"


@dataclass(frozen=True, kw_only=True)
class Inpainting:
    """Which part of a source picture is painted anew: where `mask` is white, or black if `is_inverted`.

    `mask` is a source's name. `blur_x`, `blur_y` (pixels, a Gaussian's sigma) soften its edge. A soft mask keeps its
    shades of gray, else it is black and white. With `only_masked` the masked region and `padding` pixels round it are
    painted at the request's full size and put back.
    """

    mask: str
    blur_x: int = 4
    blur_y: int = 4
    is_soft: bool = False
    content: MaskedContent = MaskedContent.FILL
    only_masked: bool = True
    padding: int = 0
    is_inverted: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture to begin from, or one for each picture asked for: `pictures` are names of stored pictures.

    `strength` (0 to 1) is the share of the schedule that is run; `runs_all_steps` lengthens the schedule so that as
    many steps as asked for are run. `noise_multiplier` scales the noise laid over the picture; `extra_noise` is added
    to the picture before.
    """

    pictures: tuple[str, ...]
    strength: float = 0.75
    resize_mode: ResizeMode = ResizeMode.STRETCH
    runs_all_steps: bool = False
    noise_multiplier: float = 1.0
    extra_noise: float = 0.0
    inpainting: Inpainting | None = None

    def picture(self, index: int) -> str:
        """Return the source of picture `index`; they are used in turn."""
        return self.pictures[index % len(self.pictures)]

    @property
    def names(self) -> tuple[str, ...]:
        """All stored pictures this source needs."""
        return (*self.pictures, self.inpainting.mask) if self.inpainting else self.pictures


@dataclass(frozen=True, kw_only=True)
class Refiner:
    """A second model that takes over once `switch_at` (0 to 1) of the training timesteps are passed.

    With a second pass it takes part in that one alone. `title` is what an infotext calls it.
    """

    model: str
    switch_at: float = 0.0
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Hires:
    """A second pass: the first one's latents, enlarged, are partly noised and denoised again.

    They are enlarged to `enlarged_width` x `enlarged_height` pixels and cropped centrally to `width` x `height`.
    `steps` 0 means as many as the first pass; None means what the first pass has. `first_pass` is the name of a stored
    picture that takes the first pass's place. `scale` is said when the size was asked for as a factor.
    """

    width: int
    height: int
    enlarged_width: int
    enlarged_height: int
    upscaler: str = "Latent"
    steps: int = 0
    strength: float = 0.75
    scale: float | None = None
    model: str | None = None
    sampler: str | None = None
    schedule: str | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    first_pass: str | None = None


def hires_size(
    width: int, height: int, *, scale: float, resize_x: int, resize_y: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return (the size to enlarge to, the size to crop to) as AUTOMATIC1111 finds them (docs/sdapi.md, "Hires fix").

    With both sides given the picture is enlarged to cover them; with one the other follows from the proportions.
    """
    if not resize_x and not resize_y:
        size = int(width * scale), int(height * scale)
        return size, size
    if not resize_y:
        size = resize_x, resize_x * height // width
        return size, size
    if not resize_x:
        size = resize_y * width // height, resize_y
        return size, size
    if width * resize_y < resize_x * height:
        return (resize_x, resize_x * height // width), (resize_x, resize_y)
    return (resize_y * width // height, resize_y), (resize_x, resize_y)
