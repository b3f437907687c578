"""Drawing on an engine process that lives as long as one command, with a progress bar."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sfumato import __version__
from sfumato.cli.output import progress_console
from sfumato.core.errors import EngineUnavailable, GenerationFailed, SfumatoError, error_from_code
from sfumato.core.ids import new_id
from sfumato.core.messages import (
    Canceled,
    Failed,
    Finished,
    FromEngine,
    Generate,
    ImageReady,
    LoadModel,
    ModelLoaded,
    Ready,
    Step,
)
from sfumato.core.models import ModelInfo
from sfumato.core.requests import GenerationRequest
from sfumato.scheduling.hosts import Host
from sfumato.scheduling.hosts.local import LocalHost
from sfumato.settings import Settings
from sfumato.storage import images, infotext


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that was written."""

    file: str
    index: int
    seed: int
    width: int
    height: int


@dataclass(kw_only=True)
class Drawing:
    """What a command has got from its engine so far."""

    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


async def draw(settings: Settings, model: ModelInfo, request: GenerationRequest, files: Sequence[Path]) -> Drawing:
    """Start an engine, have it carry out `request`, write picture i to `files[i]`, and stop it.

    Raises what the engine reports, or `EngineUnavailable` when it ends before its work does.
    """
    host = LocalHost(settings)
    try:
        with _progress_bar() as progress:
            await host.start()
            return await _follow(host, progress, model, request, files)
    except OSError as error:
        raise EngineUnavailable(f"The engine cannot be started: {error.strerror or type(error).__name__}.") from error
    finally:
        await host.stop()


async def _follow(
    host: Host, progress: Progress, model: ModelInfo, request: GenerationRequest, files: Sequence[Path]
) -> Drawing:
    job_id = str(new_id())
    host.send(LoadModel(name=model.name, family=model.family.value, location=model.location))
    host.send(Generate(job_id=job_id, request=request))
    bar = _Bar(progress, request)
    drawing = Drawing()
    async for event in host.events():
        bar.show(event)
        match event:
            case ImageReady():
                drawing.pictures.append(_write(event, model, request, files[event.index]))
            case Failed():
                raise error_from_code(event.code, event.message)
            case Canceled():
                raise GenerationFailed("The engine dropped the job.")
            case Finished():
                drawing.notes.extend(event.notes)
                drawing.pictures.sort(key=lambda picture: picture.index)
                return drawing
            case _:
                pass
    raise EngineUnavailable("The engine process ended before the picture was done.", hint="Its log says why.")


def _write(image: ImageReady, model: ModelInfo, request: GenerationRequest, file: Path) -> Picture:
    text = infotext.build(request, index=image.index, model=model, version=__version__)
    png = images.encode_png(image.pixels, image.width, image.height, {images.PARAMETERS_KEY: text})
    part = file.with_name(f".{file.name}.part")
    try:
        part.write_bytes(png)
        part.replace(file)  # whoever watches the file never sees half a picture
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise SfumatoError(f"{file} cannot be written: {error.strerror or type(error).__name__}.") from error
    seed = request.seed + image.index
    return Picture(
        file=os.fsencode(file).decode(errors="replace"),
        index=image.index,
        seed=seed,
        width=image.width,
        height=image.height,
    )


def _progress_bar() -> Progress:
    console = progress_console()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class _Bar:
    """One bar for all pictures of a request; its steps are those of all pictures together."""

    def __init__(self, progress: Progress, request: GenerationRequest) -> None:
        self._progress = progress
        self._task = progress.add_task("Starting the engine", total=None)
        self._steps = dict.fromkeys(range(request.image_count), 0)
        # A sampler may take another number of steps than was asked: each picture's own count replaces this one.
        self._totals = dict.fromkeys(range(request.image_count), request.steps)

    def show(self, event: FromEngine) -> None:
        """Bring the bar up to date with an event."""
        match event:
            case Ready():
                self._describe(f"Loading the model on {event.device}")
            case ModelLoaded():
                self._describe("Reading the prompt")
            case Step():
                self._steps[event.index], self._totals[event.index] = event.step, event.steps
                self._describe("Drawing", completed=sum(self._steps.values()), total=sum(self._totals.values()))
            case _:
                pass

    def _describe(self, description: str, *, completed: int = 0, total: int | None = None) -> None:
        self._progress.update(self._task, description=description, completed=completed, total=total)
