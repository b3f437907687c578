"""`sfumato serve`: the service, until Ctrl-C."""

from typing import Annotated

import typer

from sfumato.cli.options import ConfigOption, DataOption, DeviceOption, ModelsDirOption, PrecisionOption
from sfumato.settings import Settings


def serve(
    *,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.", show_default=False)
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default=False)] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The address others reach it by.", show_default=False)
    ] = None,
    data: DataOption = None,
    config: ConfigOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="A diffusers folder, a .safetensors file or a Hugging Face id. May be repeated; the first is the "
            "default model.",
            show_default=False,
        ),
    ] = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    log_format: Annotated[str | None, typer.Option(metavar="NAME", help="console or json.", show_default=False)] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="NAME", help="debug, info, warning or error.", show_default=False)
    ] = None,
) -> None:
    """Serve the APIs and the page.

    On an empty data folder the first administrator is made, and the key is printed this once.
    """
    settings = Settings.load(
        host=host,
        port=port,
        public_url=public_url,
        data_dir=data,
        config=config,
        model=model,
        models_dir=models_dir,
        device=device,
        precision=precision,
        log_format=log_format,
        log_level=log_level,
    )
    from sfumato.api.serve import run  # brings in the whole web application: other commands start without it

    run(settings)
