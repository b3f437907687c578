"""`sfumato generate`: pictures without a server, by an engine of its own."""

import asyncio
import random
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sfumato.cli.drawing import Drawing, draw
from sfumato.cli.options import ConfigOption, DataOption, DeviceOption, JsonOption, PrecisionOption, load_settings
from sfumato.cli.output import download_progress, note, print_json
from sfumato.core.errors import InvalidRequest, UnknownModel
from sfumato.core.models import ModelInfo
from sfumato.core.requests import GenerationRequest
from sfumato.models.registry import ModelRegistry
from sfumato.settings import Settings

_DEFAULTS = GenerationRequest(prompt="", model="")
_RANDOM_SEEDS = 2**32


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the picture shows.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The PNG file to write; several pictures become FILE-1.png, FILE-2.png and so on.",
            show_default="sfumato-SEED.png",
        ),
    ] = None,
    negative: Annotated[str, typer.Option(metavar="TEXT", help="What it should not show.")] = "",
    seed: Annotated[int | None, typer.Option(help="Picture number i has seed SEED + i.", show_default="random")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the sampler.", show_default="the model's")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How strongly to follow the prompt.", show_default="the model's")
    ] = None,
    sampler: Annotated[str, typer.Option(metavar="NAME", help="Name of a sampler.")] = _DEFAULTS.sampler,
    schedule: Annotated[str, typer.Option(metavar="NAME", help="Name of a schedule.")] = _DEFAULTS.schedule,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.", show_default="the model's")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.", show_default="the model's")] = None,
    count: Annotated[int, typer.Option(help="How many pictures.")] = 1,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Name of an installed model, a folder, a .safetensors file or a Hugging Face id.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make pictures and write them as PNG files that say how they were made. Needs no server."""
    settings = load_settings(data, config, device=device, precision=precision)
    info = find_model(settings, model)
    request = GenerationRequest(
        prompt=_text("prompt", prompt),
        negative_prompt=_text("negative", negative),
        model=info.name,
        seed=random.randrange(_RANDOM_SEEDS) if seed is None else seed,  # noqa: S311
        steps=info.default_steps if steps is None else steps,
        guidance_scale=info.default_guidance_scale if guidance is None else guidance,
        sampler=sampler,
        schedule=schedule,
        width=info.default_width if width is None else width,
        height=info.default_height if height is None else height,
        image_count=count,
    ).validated()
    files = picture_files(output or Path(f"sfumato-{request.seed}.png"), count)
    started = perf_counter()
    drawing = asyncio.run(draw(settings, info, request, files))
    _print(drawing, info, perf_counter() - started, as_json=as_json)


def find_model(settings: Settings, text: str | None) -> ModelInfo:
    """Return the model a person means: an installed one by name, else what lies at this location.

    Raises `UnknownModel` or `ModelLoadFailed`.
    """
    with download_progress("Looking for models") as progress:
        registry = ModelRegistry.scan(settings, progress=progress)
    if text is None:
        return registry.default
    try:
        return registry.find(text)
    except UnknownModel:
        if "/" not in text and not Path(text).exists():
            raise
        with download_progress("Looking for the model") as progress:
            return ModelRegistry.scan(settings.model_copy(update={"model": (text,)}), progress=progress).default


def picture_files(output: Path, count: int) -> list[Path]:
    """Return one path per picture: the output itself, or numbered ones beside it.

    Raises `InvalidRequest` when they could not be written, before any time is spent on drawing.
    """
    if output.suffix.lower() not in ("", ".png"):
        raise InvalidRequest(f"Pictures are written as PNG: {output.name} should end in .png.", field="output")
    if not output.name or output.is_dir():
        raise InvalidRequest(f"{output} is a folder, not a file.", field="output")
    if not output.parent.is_dir():
        raise InvalidRequest(f"There is no folder {output.parent}.", field="output")
    file = output.with_suffix(".png") if not output.suffix else output
    if count == 1:
        return [file]
    return [file.with_stem(f"{file.stem}-{number}") for number in range(1, count + 1)]


def _text(field: str, given: str) -> str:
    """Refuse bytes that are not UTF-8, which the operating system hands over as lone surrogates."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"The text of {field} is not valid UTF-8.", field=field) from None
    return given


def _print(drawing: Drawing, model: ModelInfo, seconds: float, *, as_json: bool) -> None:
    for line in drawing.notes:
        note(line)
    if as_json:
        pictures = [asdict(picture) for picture in drawing.pictures]
        facts = {"model": model.name, "seconds": round(seconds, 3), "notes": drawing.notes}
        print_json({"pictures": pictures, **facts})
        return
    for picture in drawing.pictures:
        typer.echo(f"{picture.file}  {picture.width}x{picture.height}, seed {picture.seed}")
