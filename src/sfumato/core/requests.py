"""`GenerationRequest`: what any dialect's request for pictures becomes before anything else sees it."""

from dataclasses import dataclass
from enum import StrEnum

from sfumato.core.errors import InvalidRequest
from sfumato.core.passes import Hires, Refiner, Source
from sfumato.core.sampling import find_sampler

LATENT_FACTOR = 8
"""Pixels per latent cell along each side, in every family served."""

AUTOMATIC_VAE, NO_VAE = "Automatic", "None"
"""Choices of a VAE besides its name: the one named as the model where there is one, and the model's own."""

MAX_SEED = 2**63 - 1
MAX_PROMPT_CHARACTERS = 20_000
MAX_SIDE = 2048
MAX_STEPS = 150
MAX_IMAGES = 64
MAX_CLIP_SKIP = 12
MAX_MASK_BLUR = 256


class PromptSyntax(StrEnum):
    """How a prompt is read: every character as itself, or in AUTOMATIC1111's prompt language."""

    PLAIN = "plain"
    A1111 = "a1111"


class Emphasis(StrEnum):
    """What brackets of the prompt language do to the states of their words.

    ORIGINAL multiplies them and rescales to the old mean, NO_NORM only multiplies, IGNORE drops the weights, and with
    NONE brackets are text.
    """

    ORIGINAL = "Original"
    NO_NORM = "No norm"
    IGNORE = "Ignore"
    NONE = "None"


class NoiseSource(StrEnum):
    """Whose random numbers a seed means: those of an NVIDIA GPU, or of PyTorch's CPU generator, on any device.

    GPU and NV are the same numbers under the two names that AUTOMATIC1111's users know.
    """

    GPU = "gpu"
    CPU = "cpu"
    NV = "nv"


class UniPCVariant(StrEnum):
    """B(h) of UniPC (Zhao et al. 2023, Sec. 3.1): h, or exp(h) - 1."""

    BH1 = "bh1"
    BH2 = "bh2"


class UniPCSpacing(StrEnum):
    """How UniPC's own levels are spaced: evenly in time, in its square root, or in log-SNR."""

    TIME_UNIFORM = "time_uniform"
    TIME_QUADRATIC = "time_quadratic"
    LOG_SNR = "logSNR"


@dataclass(frozen=True, kw_only=True)
class UniPCOptions:
    """Knobs of the UniPC sampler; `lowers_order_at_end` keeps the last steps stable when there are few."""

    variant: UniPCVariant = UniPCVariant.BH1
    spacing: UniPCSpacing = UniPCSpacing.TIME_UNIFORM
    order: int = 3
    lowers_order_at_end: bool = True


@dataclass(frozen=True, kw_only=True)
class SamplerOptions:
    """Knobs of a sampler; None leaves a sampler's own default.

    `eta`: share of fresh noise per step (Song et al. 2021, Eq. 16; 1 is fully ancestral).
    `churn`, `churn_min_sigma`, `churn_max_sigma`, `noise_scale`: S_churn, S_tmin, S_tmax, S_noise of
    Karras et al. 2022, Alg. 2 (no upper bound when None). `starts_at_unit_variance`: begin at
    noise * sqrt(1 + sigma^2) rather than noise * sigma.
    """

    eta: float | None = None
    churn: float = 0.0
    churn_min_sigma: float = 0.0
    churn_max_sigma: float | None = None
    noise_scale: float = 1.0
    starts_at_unit_variance: bool = False
    unipc: UniPCOptions = UniPCOptions()


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Knobs of a schedule; None leaves the model's own range and the schedule's own rho.

    `beta_alpha` and `beta_beta` shape the beta schedule. `discards_penultimate` leaves out the lowest level above 0.
    """

    min_sigma: float | None = None
    max_sigma: float | None = None
    rho: float | None = None
    beta_alpha: float = 0.6
    beta_beta: float = 0.6
    discards_penultimate: bool = False


@dataclass(frozen=True, kw_only=True)
class GuidanceSkips:
    """Where the negative prompt is left out to save time: the picture is then denoised as at guidance scale 1.

    `below_sigma`: at noise levels under this one, at every second evaluation unless `at_every_evaluation`.
    `until_fraction`: through this share of the evaluations, from the first on.
    """

    below_sigma: float = 0.0
    at_every_evaluation: bool = False
    until_fraction: float = 0.0

    def skip(self, *, evaluation: int, evaluations: int, sigma: float) -> bool:
        """Say whether evaluation number `evaluation`, counted from 0, goes without the negative prompt."""
        if self.until_fraction > 0 and evaluation / evaluations <= self.until_fraction:
            return True
        return sigma < self.below_sigma and (self.at_every_evaluation or evaluation % 2 == 1)


SAMPLER_DEFAULTS = SamplerOptions()
SCHEDULE_DEFAULTS = ScheduleOptions()
NO_SKIPS = GuidanceSkips()


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Starting noise between that of the seed (strength 0) and that of `subseed` (strength 1).

    Picture i takes `subseed + i`; all pictures share the seed.
    """

    subseed: int
    strength: float


@dataclass(frozen=True, kw_only=True)
class SeedResize:
    """The picture size in pixels whose starting noise is placed in the middle of this picture's."""

    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """How a prompt in A1111 syntax becomes conditioning.

    `clip_skip`: which layer of the text encoder is taken, counted from its end (1 is the last).
    `comma_backtrack_tokens`: a full chunk is cut after a comma that lies so near to its end.
    """

    emphasis: Emphasis = Emphasis.ORIGINAL
    clip_skip: int = 1
    comma_backtrack_tokens: int = 20


@dataclass(frozen=True, kw_only=True)
class AddOn:
    """A LoRA or an embedding that a prompt names: by `word` there, by `name` in the registry; hash in 12 hex digits."""

    word: str
    name: str
    short_hash: str


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One request for `image_count` pictures of `width` x `height` pixels; picture i has seed `seed + i`.

    With a variation all have `seed`. `eta_seed_delta` is added to the seed of all noise after the first draw (ENSD).
    `vae` names one that stands in for the model's own; `vae_hash`, of 10 hex digits, is filled in when it is accepted.
    `model` is an id of the model registry; `sampler` and `schedule` are display names of `core.sampling`. `adapters`
    and `embeddings` are the LoRAs and textual inversions that a prompt names and that are installed; how strongly a
    LoRA acts is said in the prompt.
    """

    prompt: str
    model: str
    negative_prompt: str = ""
    prompt_syntax: PromptSyntax = PromptSyntax.PLAIN
    prompt_options: PromptOptions = PromptOptions()
    adapters: tuple[AddOn, ...] = ()
    embeddings: tuple[AddOn, ...] = ()
    width: int = 512
    height: int = 512
    steps: int = 20
    guidance_scale: float = 7.0
    sampler: str = "Euler"
    schedule: str = "Automatic"
    sampler_options: SamplerOptions = SAMPLER_DEFAULTS
    schedule_options: ScheduleOptions = SCHEDULE_DEFAULTS
    guidance_skips: GuidanceSkips = NO_SKIPS
    seed: int = 0
    variation: Variation | None = None
    seed_resize: SeedResize | None = None
    eta_seed_delta: int = 0
    noise_source: NoiseSource = NoiseSource.GPU
    image_count: int = 1
    source: Source | None = None
    hires: Hires | None = None
    refiner: Refiner | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are needed, the first pass's first."""
        second = (self.hires.model,) if self.hires and self.hires.model else ()
        return (self.model, *second, *((self.refiner.model,) if self.refiner else ()))

    @property
    def stored_pictures(self) -> tuple[str, ...]:
        """The names of the stored pictures that are needed to carry this request out."""
        first_pass = self.hires.first_pass if self.hires else None
        return (*(self.source.names if self.source else ()), *((first_pass,) if first_pass else ()))

    vae: str = AUTOMATIC_VAE
    vae_hash: str = ""

    def seed_of(self, index: int) -> int:
        """Return the seed of a picture."""
        return self.seed if self.variation else self.seed + index

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
            ("clip_skip", self.prompt_options.clip_skip, 1, MAX_CLIP_SKIP),
            ("comma_backtrack_tokens", self.prompt_options.comma_backtrack_tokens, 0, 74),
        ):
            _check(field, value, low, high)
        for field, side in (("width", self.width), ("height", self.height)):
            if side % LATENT_FACTOR:
                raise InvalidRequest(f"{field} must be a multiple of {LATENT_FACTOR}, not {side}.", field=field)
        for field, text in (("prompt", self.prompt), ("negative_prompt", self.negative_prompt)):
            if len(text) > MAX_PROMPT_CHARACTERS:
                raise InvalidRequest(f"{field} is longer than {MAX_PROMPT_CHARACTERS} characters.", field=field)
        self._validate_noise()
        self._validate_sampler_options()
        self._validate_passes()
        find_sampler(self.sampler, self.schedule)
        return self

    def _validate_noise(self) -> None:
        if self.variation is not None:
            _check("subseed", self.variation.subseed, 0, MAX_SEED - self.image_count)
            _check("subseed_strength", self.variation.strength, 0.0, 1.0)
        if self.seed_resize is not None:
            _check("seed_resize_from_w", self.seed_resize.width, LATENT_FACTOR, MAX_SIDE)
            _check("seed_resize_from_h", self.seed_resize.height, LATENT_FACTOR, MAX_SIDE)
        _check("eta_noise_seed_delta", self.eta_seed_delta, -MAX_SEED, MAX_SEED)

    def _validate_passes(self) -> None:
        if self.source is not None and self.hires is not None:
            raise InvalidRequest("A second pass is for pictures from a prompt alone.", field="enable_hr")
        if (source := self.source) is not None:
            _check("denoising_strength", source.strength, 0.0, 1.0)
            _check("initial_noise_multiplier", source.noise_multiplier, 0.0, 10.0)
            _check("img2img_extra_noise", source.extra_noise, 0.0, 10.0)
            if (inpainting := source.inpainting) is not None:
                _check("mask_blur_x", inpainting.blur_x, 0, MAX_MASK_BLUR)
                _check("mask_blur_y", inpainting.blur_y, 0, MAX_MASK_BLUR)
                _check("inpaint_full_res_padding", inpainting.padding, 0, MAX_SIDE)
        if self.refiner is not None:
            _check("refiner_switch_at", self.refiner.switch_at, 0.0, 1.0)
        if (hires := self.hires) is not None:
            for field, value in (
                ("width", hires.width),
                ("height", hires.height),
                ("width", hires.enlarged_width),
                ("height", hires.enlarged_height),
            ):
                _check(f"the second pass's {field}", value, 64, MAX_SIDE)
            _check("hr_second_pass_steps", hires.steps, 0, MAX_STEPS)
            _check("denoising_strength", hires.strength, 0.0, 1.0)
            find_sampler(hires.sampler or self.sampler, hires.schedule or self.schedule)

    def _validate_sampler_options(self) -> None:
        options, schedule, skips = self.sampler_options, self.schedule_options, self.guidance_skips
        for field, value in (
            ("eta", options.eta if options.eta is not None else 0.0),
            ("churn", options.churn),
            ("churn_min_sigma", options.churn_min_sigma),
            ("noise_scale", options.noise_scale),
            ("s_min_uncond", skips.below_sigma),
        ):
            _check(field, value, 0, 1000)
        if options.churn_max_sigma is not None and not options.churn_max_sigma >= 0:
            raise InvalidRequest("churn_max_sigma must not be negative.", field="churn_max_sigma")
        _check("skip_early_cond", skips.until_fraction, 0.0, 1.0)
        _check("uni_pc_order", options.unipc.order, 1, 6)
        for name, given, low, high in (
            ("sigma_min", schedule.min_sigma, 1e-4, 1000.0),
            ("sigma_max", schedule.max_sigma, 1e-3, 1000.0),
            ("rho", schedule.rho, 0.1, 100.0),
            ("beta_dist_alpha", schedule.beta_alpha, 0.01, 100.0),
            ("beta_dist_beta", schedule.beta_beta, 0.01, 100.0),
        ):
            if given is not None:
                _check(name, given, low, high)


def _check(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # false for NaN too
        raise InvalidRequest(f"{field} must be between {low} and {high}, not {value}.", field=field)
