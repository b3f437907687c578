"""`sfumato models`: which models there are."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sfumato.cli.options import ConfigOption, DataOption, JsonOption, ModelsDirOption, load_settings
from sfumato.cli.output import download_progress, note, print_json, print_table
from sfumato.core.models import ModelInfo
from sfumato.models.registry import ModelRegistry

HEADINGS = ("name", "family", "size", "hash", "default", "location")

app = typer.Typer(help="Models on this machine.", no_args_is_help=True)


@app.callback()
def _models() -> None:
    """Keep `list` a command of its own, although there is no other yet."""


@app.command("list")
def list_models(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A model to list too, as for serve.", show_default=False),
    ] = None,
    models_dir: ModelsDirOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that can be used, and say why others cannot.

    Computes the hashes of files that have none yet, which reads them once from end to end.
    """
    settings = load_settings(data, config, model=model, models_dir=models_dir)
    with download_progress("Reading models") as progress:
        registry = ModelRegistry.scan(settings, compute_hashes=True, progress=progress)
    if as_json:
        models = [_as_json(each, registry.default) for each in registry.models]
        print_json({"models": models, "skipped": [asdict(each) for each in registry.skipped]})
        return
    print_table(HEADINGS, (_row(each, registry.default) for each in registry.models))
    for skipped in registry.skipped:
        note(f"not usable: {skipped.location}: {skipped.reason}")


def _row(model: ModelInfo, default: ModelInfo) -> tuple[object, ...]:
    size = f"{model.default_width}x{model.default_height}"
    is_default = "yes" if model is default else "-"
    return model.name, model.family, size, model.short_hash or "-", is_default, model.location


def _as_json(model: ModelInfo, default: ModelInfo) -> dict[str, Any]:
    return asdict(model) | {"is_default": model is default}
