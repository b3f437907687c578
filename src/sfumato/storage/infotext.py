"""Infotext: the text that says how a picture was made, in AUTOMATIC1111's format (docs/http.md, section "Infotext").

    <prompt, may have several lines>
    Negative prompt: <negative prompt, may have several lines>
    Steps: 20, Sampler: Euler, Schedule type: Automatic, CFG scale: 7.0, Seed: 1, Size: 512x512, ...

`parse(build(request))` gives the same values back. One thing the format cannot hold: a line of the prompt itself that
starts with "Negative prompt:" is read as the start of the negative prompt, by every reader.
"""

import json
import re
from collections.abc import Mapping

from sfumato.core.models import ModelInfo
from sfumato.core.requests import (
    AUTOMATIC_VAE,
    NO_VAE,
    SAMPLER_DEFAULTS,
    SCHEDULE_DEFAULTS,
    Emphasis,
    GenerationRequest,
    GuidanceSkips,
    NoiseSource,
    SamplerOptions,
    ScheduleOptions,
    UniPCOptions,
)
from sfumato.core.sampling import SamplerInfo, ScheduleInfo, effective_schedule, find_sampler
from sfumato.storage.infotext_passes import pass_fields

_NEGATIVE = "Negative prompt:"
_FIRST_KEYS = (
    "Steps",
    "Sampler",
    "Schedule type",
    "CFG scale",
    "Image CFG scale",
    "Seed",
    "Face restoration",
    "Size",
    "Model hash",
    "Model",
    "FP8 weight",
    "Cache FP16 weight for LoRA",
    "VAE hash",
    "VAE",
    "Variation seed",
    "Variation seed strength",
    "Seed resize from",
    "Denoising strength",
    "Conditional mask weight",
    "Clip skip",
    "ENSD",
    "Token merging ratio",
    "Token merging ratio hr",
    "Init image hash",
    "RNG",
    "Tiling",
)
_LAST_KEYS = ("Version", "User")

_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_SIZE = re.compile(r"(\d+)x(\d+)")
_BRACKET = re.compile(r"(?<!\\)[(\[]")
_FEWEST_PARAMETERS = 3

_DEFAULTS: dict[str, str] = {
    "Clip skip": "1",
    "Hires resize-1": "0",
    "Hires resize-2": "0",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": "32",
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": "0",
    "Schedule min sigma": "0",
    "Schedule rho": "0",
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": "False",
}
"""What a reader takes for a key that is absent."""

Fields = dict[str, str | int | float]


def build(request: GenerationRequest, *, index: int = 0, model: ModelInfo | None = None, version: str) -> str:
    """Return the infotext of picture `index` of a request; `version` is the program's, such as "0.1.0"."""
    fields = request_fields(request, index=index, model=model) | {"Version": f"sfumato {version}"}
    return format_infotext(request.prompt, request.negative_prompt, fields)


def request_fields(
    request: GenerationRequest, *, index: int = 0, model: ModelInfo | None = None
) -> dict[str, str | int | float | None]:
    """Return the keys and values of a request's last line, without the version."""
    sampler, schedule = find_sampler(request.sampler, request.schedule)
    return {
        "Steps": request.steps,
        "Sampler": sampler.name,
        "Schedule type": effective_schedule(sampler, schedule),
        "CFG scale": float(request.guidance_scale),
        "Seed": request.seed_of(index),
        "Size": f"{request.width}x{request.height}",
        "Model hash": model.short_hash if model else None,
        "Model": model.name if model else request.model,
        "VAE hash": request.vae_hash or None,
        "VAE": None if request.vae in (AUTOMATIC_VAE, NO_VAE) else request.vae,
        "Clip skip": request.prompt_options.clip_skip if request.prompt_options.clip_skip > 1 else None,
        "RNG": None if request.noise_source is NoiseSource.GPU else request.noise_source.value.upper(),
        **_noise_fields(request, sampler, index),
        **extra_fields(request),
    }


def extra_fields(request: GenerationRequest) -> Fields:
    """Return the keys of what was asked beyond the ordinary: `extra_generation_params`."""
    sampler, schedule = find_sampler(request.sampler, request.schedule)
    return {
        **_sampler_fields(request.sampler_options, sampler),
        **_schedule_fields(request.schedule_options, sampler, schedule),
        **_skip_fields(request.guidance_skips),
        **_prompt_fields(request),
        **pass_fields(request),
    }


def _prompt_fields(request: GenerationRequest) -> Fields:
    """Return what is told of the prompts beyond their text: LoRAs, embeddings, and an unusual emphasis in use."""
    found = Fields()
    for key, add_ons in (("Lora hashes", request.adapters), ("TI hashes", request.embeddings)):
        if add_ons:
            found[key] = ", ".join(f"{each.word}: {each.short_hash}" for each in add_ons)
    emphasis = request.prompt_options.emphasis
    has_brackets = any(_BRACKET.search(text) for text in (request.prompt, request.negative_prompt))
    if emphasis is not Emphasis.ORIGINAL and has_brackets:
        found["Emphasis"] = emphasis.value
    return found


def _noise_fields(request: GenerationRequest, sampler: SamplerInfo, index: int) -> Fields:
    found = Fields()
    if request.variation is not None:
        found["Variation seed"] = request.variation.subseed + index
        found["Variation seed strength"] = float(request.variation.strength)
    if request.seed_resize is not None:
        found["Seed resize from"] = f"{request.seed_resize.width}x{request.seed_resize.height}"
    if request.eta_seed_delta and sampler.uses_ensd and request.sampler_options.eta != 0:
        found["ENSD"] = request.eta_seed_delta
    return found


def _schedule_fields(options: ScheduleOptions, sampler: SamplerInfo, schedule: ScheduleInfo) -> Fields:
    found = Fields()
    found |= _nonzero("Schedule min sigma", options.min_sigma or 0.0)
    found |= _nonzero("Schedule max sigma", options.max_sigma or 0.0)
    found |= _nonzero("Schedule rho", options.rho or 0.0)
    if schedule.name == "beta":
        found |= _unless_default("Beta schedule alpha", options.beta_alpha, SCHEDULE_DEFAULTS.beta_alpha)
        found |= _unless_default("Beta schedule beta", options.beta_beta, SCHEDULE_DEFAULTS.beta_beta)
    return found | _unless_default("Discard penultimate sigma", str(options.discards_penultimate), "False")


def _skip_fields(skips: GuidanceSkips) -> Fields:
    found = Fields(_nonzero("NGMS", skips.below_sigma))
    if skips.below_sigma:
        found |= _unless_default("NGMS all steps", str(skips.at_every_evaluation), "False")
    return found | _nonzero("Skip Early CFG", skips.until_fraction)


def _sampler_fields(options: SamplerOptions, sampler: SamplerInfo) -> Fields:
    """Return the knobs a sampler really uses and that differ from its defaults."""
    found = Fields()
    if sampler.eta is not None and options.eta is not None:
        found |= _unless_default(sampler.eta.label, float(options.eta), sampler.eta.default)
    if sampler.takes_churn:
        found |= _nonzero("Sigma churn", options.churn)
        found |= _nonzero("Sigma tmin", options.churn_min_sigma)
        found |= _nonzero("Sigma tmax", options.churn_max_sigma or 0.0)
    if sampler.takes_noise_scale:
        found |= _unless_default("Sigma noise", float(options.noise_scale), 1.0)
    if sampler.name == "UniPC":
        found |= _unipc_fields(options.unipc, SAMPLER_DEFAULTS.unipc)
    return found | _unless_default("SGM noise multiplier", str(options.starts_at_unit_variance), "False")


def _unipc_fields(options: UniPCOptions, default: UniPCOptions) -> Fields:
    return {
        **_unless_default("UniPC variant", options.variant.value, default.variant.value),
        **_unless_default("UniPC skip type", options.spacing.value, default.spacing.value),
        **_unless_default("UniPC order", options.order, default.order),
        **_unless_default("UniPC lower order final", str(options.lowers_order_at_end), "True"),
    }


def format_infotext(prompt: str, negative_prompt: str, fields: Mapping[str, str | int | float | None]) -> str:
    """Lay out prompts and fields; known keys come in the format's order, others between them and the version.

    Fields of None are left out.
    """
    lines = [prompt] if prompt else []
    if negative_prompt:
        lines.append(f"{_NEGATIVE} {negative_prompt}")
    given = {key: value for key, value in fields.items() if value is not None}
    middle = [key for key in given if key not in _FIRST_KEYS and key not in _LAST_KEYS]
    order = [key for key in (*_FIRST_KEYS, *middle, *_LAST_KEYS) if key in given]
    lines.append(", ".join(_parameter(key, str(given[key])) for key in order))
    return "\n".join(lines)


def parse(infotext: str) -> dict[str, str]:
    """Read an infotext into its keys, all values as text; sizes such as `Size: 8x16` become `Size-1` and `Size-2`.

    "Prompt" and "Negative prompt" are always there, and absent keys get the format's defaults. A text without a line
    of parameters is all prompt.
    """
    prompts, last_line = _split_parameters(infotext)
    prompt, negative = _split_prompts(prompts)
    found = {"Prompt": prompt, "Negative prompt": negative}
    for match in _PARAMETER.finditer(last_line):
        found |= _read_parameter(match[1], match[2])
    if _BRACKET.search(prompt) or _BRACKET.search(negative):
        found.setdefault("Emphasis", "Original")
    return _DEFAULTS | found


def _nonzero(key: str, value: float) -> Fields:
    return {key: float(value)} if value else {}


def _unless_default(key: str, value: str | int | float, default: str | int | float) -> Fields:
    return {} if value == default else {key: value}


def _parameter(key: str, value: str) -> str:
    return key if key == value else f"{key}: {_quote(value)}"


def _quote(value: str) -> str:
    # A value that only looks quoted, or that has blanks at its ends, would be read back as something else.
    must_quote = any(mark in value for mark in ",:\n") or value.startswith('"') or value != value.strip()
    return json.dumps(value, ensure_ascii=False) if must_quote else value


def _split_parameters(infotext: str) -> tuple[str | None, str]:
    """Return the text before the line of parameters (None when there is none at all), and that line or ""."""
    head, newline, last_line = infotext.rstrip("\n").rpartition("\n")
    if len(_PARAMETER.findall(last_line)) < _FEWEST_PARAMETERS:
        return infotext, ""
    return (head if newline else None), last_line


def _split_prompts(text: str | None) -> tuple[str, str]:
    if text is None:
        return "", ""
    before, found, after = f"\n{text}".partition(f"\n{_NEGATIVE}")
    return before[1:], after.removeprefix(" ") if found else ""


def _read_parameter(key: str, value: str) -> dict[str, str]:
    value = _unquote(value)
    if size := _SIZE.fullmatch(value):
        return {f"{key}-1": size[1], f"{key}-2": size[2]}
    return {key: value}


def _unquote(value: str) -> str:
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
