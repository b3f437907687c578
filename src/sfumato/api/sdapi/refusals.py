"""Fields that this version does not carry out: accepted while they ask for nothing, refused when they ask.

Clients send every field they know on each request, most of them at values without effect; those must pass. A field
that would change the picture must never be dropped in silence.
"""

from collections.abc import Callable
from typing import Any

from fastapi import HTTPException

from sfumato.api.sdapi.fields import GenerationBody, Img2ImgBody
from sfumato.core.errors import NotSupported

_OFF = ("", "none")

_ASKS: dict[str, Callable[[GenerationBody], Any]] = {
    "restore_faces": lambda body: body.restore_faces,
    "tiling": lambda body: body.tiling,
    "latent_mask": lambda body: isinstance(body, Img2ImgBody) and body.latent_mask,
    "infotext": lambda body: body.infotext,
}


def refuse_unsupported(body: GenerationBody) -> None:
    """Raise `NotSupported` for the first field that asks for what is not done here.

    Raises an `HTTPException` of status 422 for a script, in upstream's words.
    """
    for name, asks in _ASKS.items():
        if asks(body):
            raise NotSupported(
                f"{name} is not supported by this version of Sfumato.",
                field=name,
                hint="Leave the field out, or send its default.",
            )
    _refuse_scripts(body)


def _refuse_scripts(body: GenerationBody) -> None:
    if (body.script_name or "").strip().casefold() not in _OFF:
        raise HTTPException(422, f"Script '{body.script_name}' not found")
    for title, unit in body.alwayson_scripts.items():
        if not _is_idle(unit):
            raise HTTPException(422, f"Script '{title}' not found")


def _is_idle(unit: Any) -> bool:
    """Say whether an always-on script's entry asks for nothing: no arguments, or switched off by the first of them."""
    args = unit.get("args") if isinstance(unit, dict) else unit
    if not args:
        return True
    if not isinstance(args, list):
        return False
    if all(isinstance(arg, dict) and arg.get("enabled") is False for arg in args):
        return True  # ControlNet's way: each unit has its own switch
    return args[0] is False
