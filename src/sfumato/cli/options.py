"""Options that several commands share, and the settings they lead to."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.api.logs import configure_logging
from sfumato.settings import Settings

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="The data folder.", envvar=None, show_default=False)
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file of settings.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="auto, cpu or cuda.", show_default=False)
]
PrecisionOption = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME", help="auto, float32, bfloat16 or float16.", show_default=False),
]
ModelsDirOption = Annotated[
    Path | None, typer.Option("--models-dir", metavar="DIR", help="A folder of models.", show_default=False)
]


def load_settings(data: Path | None, config: Path | None, **flags: Any) -> Settings:
    """Read the settings for a command that runs and ends; its log shows warnings only, unless told otherwise."""
    settings = Settings.load(data_dir=data, config=config, **flags)
    quiet = "warning" if settings.log_level == "info" else settings.log_level
    configure_logging(settings.log_format, quiet)
    return settings
