"""`GenerationRequest`: what any dialect's request for pictures becomes before anything else sees it."""

from dataclasses import dataclass
from enum import StrEnum

from sfumato.core.errors import InvalidRequest
from sfumato.core.sampling import find_sampler

LATENT_FACTOR = 8
"""Pixels per latent cell along each side, in every family served."""

MAX_SEED = 2**63 - 1
MAX_PROMPT_CHARACTERS = 20_000
MAX_SIDE = 2048
MAX_STEPS = 150
MAX_IMAGES = 64


class PromptSyntax(StrEnum):
    """How a prompt is read: every character as itself, or in AUTOMATIC1111's prompt language."""

    PLAIN = "plain"
    A1111 = "a1111"


class NoiseSource(StrEnum):
    """Whose random numbers a seed means: PyTorch's CPU generator, or Philox as on an NVIDIA GPU, on any device."""

    CPU = "cpu"
    NV = "nv"


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Knobs of a sampler; None leaves a sampler's own default.

    `eta`: share of fresh noise per step (Song et al. 2021, Eq. 16; 1 is fully ancestral).
    `churn`, `churn_min_sigma`, `churn_max_sigma`, `noise_scale`: S_churn, S_tmin, S_tmax, S_noise of
    Karras et al. 2022, Alg. 2 (no upper bound when None).
    """

    eta: float | None = None
    churn: float = 0.0
    churn_min_sigma: float = 0.0
    churn_max_sigma: float | None = None
    noise_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One request for `image_count` pictures of `width` x `height` pixels; picture i has seed `seed + i`.

    `model` is an id of the model registry; `sampler` and `schedule` are display names of `core.sampling`.
    """

    prompt: str
    model: str
    negative_prompt: str = ""
    prompt_syntax: PromptSyntax = PromptSyntax.PLAIN
    width: int = 512
    height: int = 512
    steps: int = 20
    guidance_scale: float = 7.0
    sampler: str = "Euler"
    schedule: str = "Automatic"
    sampler_options: SamplerOptions = SamplerOptions()
    seed: int = 0
    noise_source: NoiseSource = NoiseSource.NV
    image_count: int = 1

    def validated(self) -> "GenerationRequest":
        """Return this request, or raise `InvalidRequest` naming the first field no engine could serve.

        These are the engine's own bounds; a dialect may be stricter before it comes here.
        """
        for field, value, low, high in (
            ("width", self.width, 64, MAX_SIDE),
            ("height", self.height, 64, MAX_SIDE),
            ("steps", self.steps, 1, MAX_STEPS),
            ("image_count", self.image_count, 1, MAX_IMAGES),
            ("seed", self.seed, 0, MAX_SEED - self.image_count),
            ("guidance_scale", self.guidance_scale, 0.0, 100.0),
        ):
            if not low <= value <= high:  # false for NaN too
                raise InvalidRequest(f"{field} must be between {low} and {high}, not {value}.", field=field)
        for field, side in (("width", self.width), ("height", self.height)):
            if side % LATENT_FACTOR:
                raise InvalidRequest(f"{field} must be a multiple of {LATENT_FACTOR}, not {side}.", field=field)
        for field, text in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt)):
            if len(text) > MAX_PROMPT_CHARACTERS:
                raise InvalidRequest(f"{field} is longer than {MAX_PROMPT_CHARACTERS} characters.", field=field)
        self._validate_sampler_options()
        find_sampler(self.sampler, self.schedule)
        return self

    def _validate_sampler_options(self) -> None:
        options = self.sampler_options
        for field, value in (
            ("eta", options.eta if options.eta is not None else 0.0),
            ("churn", options.churn),
            ("churn_min_sigma", options.churn_min_sigma),
            ("noise_scale", options.noise_scale),
        ):
            if not 0 <= value <= 1000:
                raise InvalidRequest(f"{field} must be between 0 and 1000, not {value}.", field=field)
        if options.churn_max_sigma is not None and not options.churn_max_sigma >= 0:
            raise InvalidRequest("churn_max_sigma must not be negative.", field="churn_max_sigma")
