"""Names and published facts of samplers and schedules; the rules themselves live in `sfumato.engine.sampling`.

The names are those of the AUTOMATIC1111 API (docs/sdapi.md); the translators of other dialects map theirs onto these.
"""

from dataclasses import dataclass, field

from sfumato.core.errors import UnknownSampler

AUTOMATIC = "Automatic"


@dataclass(frozen=True, kw_only=True)
class SamplerInfo:
    """What a client may know of a sampler.

    `default_schedule` is the label used for "Automatic"; None means "Uniform" is used and "Automatic" is shown.
    `options` is the sdapi listing's free-form table; its values are strings on the wire.
    """

    name: str
    aliases: tuple[str, ...] = ()
    default_schedule: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    ignores_schedule: bool = False


@dataclass(frozen=True, kw_only=True)
class ScheduleInfo:
    """What a client may know of a schedule; `default_rho` is -1 where rho is not used."""

    name: str
    label: str
    aliases: tuple[str, ...] = ()
    default_rho: float = -1.0
    needs_model: bool = False


SAMPLERS: tuple[SamplerInfo, ...] = (
    SamplerInfo(name="DPM++ 2M", aliases=("k_dpmpp_2m",), default_schedule="Karras", options={"scheduler": "karras"}),
    SamplerInfo(name="Euler a", aliases=("k_euler_a", "k_euler_ancestral"), options={"uses_ensd": "True"}),
    SamplerInfo(name="Euler", aliases=("k_euler",)),
    SamplerInfo(name="Heun", aliases=("k_heun",), options={"second_order": "True"}),
    SamplerInfo(name="DDIM", aliases=("ddim",), ignores_schedule=True),
)

SCHEDULES: tuple[ScheduleInfo, ...] = (
    ScheduleInfo(name="automatic", label=AUTOMATIC),
    ScheduleInfo(name="uniform", label="Uniform", needs_model=True),
    ScheduleInfo(name="karras", label="Karras", default_rho=7.0),
    ScheduleInfo(name="exponential", label="Exponential"),
    ScheduleInfo(name="sgm_uniform", label="SGM Uniform", aliases=("SGMUniform",), needs_model=True),
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
