"""Names and published facts of samplers and schedules; the rules themselves live in `sfumato.engine.sampling`.

The names are those of the AUTOMATIC1111 API (docs/sdapi.md); the translators of other dialects map theirs onto these.
"""

from dataclasses import dataclass, field

from sfumato.core.errors import UnknownSampler

AUTOMATIC = "Automatic"


@dataclass(frozen=True)
class Eta:
    """How a sampler takes eta: its own value, and the name an infotext gives it."""

    label: str
    default: float


ANCESTRAL_ETA = Eta("Eta", 1.0)
DDIM_ETA = Eta("Eta DDIM", 0.0)


@dataclass(frozen=True, kw_only=True)
class SamplerInfo:
    """What a client may know of a sampler.

    `default_schedule` is the label used for "Automatic"; None means "Uniform" is used and "Automatic" is shown.
    `has_own_levels`: "Automatic" means levels made for this sampler, and is shown. `takes_churn` covers S_churn, S_tmin
    and S_tmax, `takes_noise_scale` S_noise; other samplers leave those options aside. `options` is the sdapi listing's
    free-form table; its values are strings on the wire.
    """

    name: str
    aliases: tuple[str, ...] = ()
    default_schedule: str | None = None
    has_own_levels: bool = False
    eta: Eta | None = None
    takes_churn: bool = False
    takes_noise_scale: bool = False
    discards_penultimate: bool = False
    options: dict[str, str] = field(default_factory=dict)

    @property
    def uses_ensd(self) -> bool:
        """Whether an infotext names the eta noise seed delta."""
        return "uses_ensd" in self.options


@dataclass(frozen=True, kw_only=True)
class ScheduleInfo:
    """What a client may know of a schedule; `default_rho` is -1 where rho is not used."""

    name: str
    label: str
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    needs_model: bool = False


_TRUE = "True"

SAMPLERS: tuple[SamplerInfo, ...] = (
    SamplerInfo(name="DPM++ 2M", aliases=("k_dpmpp_2m",), default_schedule="Karras", options={"scheduler": "karras"}),
    SamplerInfo(
        name="DPM++ SDE",
        aliases=("k_dpmpp_sde",),
        default_schedule="Karras",
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        options={"scheduler": "karras", "second_order": _TRUE, "brownian_noise": _TRUE},
    ),
    SamplerInfo(
        name="DPM++ 2M SDE",
        aliases=("k_dpmpp_2m_sde",),
        default_schedule="Exponential",
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        options={"scheduler": "exponential", "brownian_noise": _TRUE},
    ),
    SamplerInfo(
        name="DPM++ 2M SDE Heun",
        aliases=("k_dpmpp_2m_sde_heun",),
        default_schedule="Exponential",
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        options={"scheduler": "exponential", "brownian_noise": _TRUE, "solver_type": "heun"},
    ),
    SamplerInfo(
        name="DPM++ 2S a",
        aliases=("k_dpmpp_2s_a",),
        default_schedule="Karras",
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        options={"scheduler": "karras", "uses_ensd": _TRUE, "second_order": _TRUE},
    ),
    SamplerInfo(
        name="DPM++ 3M SDE",
        aliases=("k_dpmpp_3m_sde",),
        default_schedule="Exponential",
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        discards_penultimate=True,
        options={"scheduler": "exponential", "discard_next_to_last_sigma": _TRUE, "brownian_noise": _TRUE},
    ),
    SamplerInfo(
        name="Euler a", aliases=("k_euler_a", "k_euler_ancestral"), eta=ANCESTRAL_ETA, options={"uses_ensd": _TRUE}
    ),
    SamplerInfo(name="Euler", aliases=("k_euler",), takes_churn=True, takes_noise_scale=True),
    SamplerInfo(name="LMS", aliases=("k_lms",)),
    SamplerInfo(
        name="Heun",
        aliases=("k_heun",),
        takes_churn=True,
        takes_noise_scale=True,
        options={"second_order": _TRUE},
    ),
    SamplerInfo(
        name="DPM2",
        aliases=("k_dpm_2",),
        default_schedule="Karras",
        takes_churn=True,
        takes_noise_scale=True,
        discards_penultimate=True,
        options={"scheduler": "karras", "discard_next_to_last_sigma": _TRUE, "second_order": _TRUE},
    ),
    SamplerInfo(
        name="DPM2 a",
        aliases=("k_dpm_2_a",),
        default_schedule="Karras",
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        discards_penultimate=True,
        options={
            "scheduler": "karras",
            "discard_next_to_last_sigma": _TRUE,
            "uses_ensd": _TRUE,
            "second_order": _TRUE,
        },
    ),
    SamplerInfo(
        name="DPM fast",
        aliases=("k_dpm_fast",),
        eta=ANCESTRAL_ETA,
        takes_noise_scale=True,
        options={"uses_ensd": _TRUE},
    ),
    SamplerInfo(name="DPM adaptive", aliases=("k_dpm_ad",), eta=ANCESTRAL_ETA, options={"uses_ensd": _TRUE}),
    SamplerInfo(
        name="Restart",
        aliases=("restart",),
        default_schedule="Karras",
        options={"scheduler": "karras", "second_order": _TRUE},
    ),
    SamplerInfo(name="DDIM", aliases=("ddim",), has_own_levels=True, eta=DDIM_ETA),
    SamplerInfo(name="DDIM CFG++", aliases=("ddim_cfgpp",), has_own_levels=True, eta=DDIM_ETA),
    SamplerInfo(name="PLMS", aliases=("plms",), has_own_levels=True),
    SamplerInfo(name="UniPC", aliases=("unipc",), has_own_levels=True),
    SamplerInfo(name="LCM", aliases=("k_lcm",), has_own_levels=True),
    SamplerInfo(name="DPM++ 2S", aliases=("k_dpmpp_2s",), options={"second_order": _TRUE}),
    SamplerInfo(name="DDPM", aliases=("ddpm",), has_own_levels=True),
    SamplerInfo(name="DEIS", aliases=("deis", "k_deis")),
    SamplerInfo(name="IPNDM", aliases=("ipndm",)),
    SamplerInfo(name="RES multistep", aliases=("res_multistep",), default_schedule="Karras"),
    SamplerInfo(name="ER-SDE", aliases=("er_sde",), default_schedule="Karras", takes_noise_scale=True),
)
"""AUTOMATIC1111's twenty in its order, and after them those it has not."""

SCHEDULES: tuple[ScheduleInfo, ...] = (
    ScheduleInfo(name="automatic", label=AUTOMATIC),
    ScheduleInfo(name="uniform", label="Uniform", needs_model=True),
    ScheduleInfo(name="karras", label="Karras", default_rho=7.0),
    ScheduleInfo(name="exponential", label="Exponential"),
    ScheduleInfo(name="polyexponential", label="Polyexponential", default_rho=1.0),
    ScheduleInfo(name="sgm_uniform", label="SGM Uniform", aliases=("SGMUniform",), needs_model=True),
    ScheduleInfo(name="kl_optimal", label="KL Optimal"),
    ScheduleInfo(name="align_your_steps", label="Align Your Steps"),
    ScheduleInfo(name="simple", label="Simple", needs_model=True),
    ScheduleInfo(name="normal", label="Normal", needs_model=True),
    ScheduleInfo(name="ddim", label="DDIM", needs_model=True),
    ScheduleInfo(name="beta", label="Beta", needs_model=True),
    ScheduleInfo(name="turbo", label="Turbo", needs_model=True),
)


def _words(info: SamplerInfo | ScheduleInfo) -> set[str]:
    own = (info.name, info.label) if isinstance(info, ScheduleInfo) else (info.name,)
    return {word.casefold() for word in (*own, *info.aliases)}


def find_schedule(name: str | None) -> ScheduleInfo:
    """Return the schedule of a name, label or alias in any case; None or "" means Automatic.

    Raises `UnknownSampler` when there is none.
    """
    wanted = (name or AUTOMATIC).strip().casefold()
    for info in SCHEDULES:
        if wanted in _words(info):
            return info
    labels = ", ".join(info.label for info in SCHEDULES)
    raise UnknownSampler(f"There is no schedule named {name!r}.", field="scheduler", hint=f"One of: {labels}.")


def find_sampler(name: str, schedule: str | None = None) -> tuple[SamplerInfo, ScheduleInfo]:
    """Resolve a sampler's name and an optional schedule's to their entries.

    A name or alias matches in any case. A name that ends in a schedule ("DPM++ 2M Karras") carries it along unless
    `schedule` is given. Raises `UnknownSampler`.
    """
    wanted = name.strip().casefold()
    for info in SAMPLERS:
        if wanted in _words(info):
            return info, find_schedule(schedule)
    for suffix in SCHEDULES:
        for word in sorted(_words(suffix), key=len, reverse=True):
            if wanted.endswith(f" {word}"):
                return find_sampler(wanted.removesuffix(f" {word}"), schedule or suffix.name)
    names = ", ".join(info.name for info in SAMPLERS)
    raise UnknownSampler(f"There is no sampler named {name!r}.", field="sampler_name", hint=f"One of: {names}.")


def effective_schedule(sampler: SamplerInfo, schedule: ScheduleInfo) -> str:
    """Return the label that names what "Automatic" turned into, as an infotext shows it.

    "Automatic" itself is returned for a sampler without a default of its own, as AUTOMATIC1111 does.
    """
    if schedule.label != AUTOMATIC:
        return schedule.label
    return sampler.default_schedule or AUTOMATIC
