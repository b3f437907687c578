"""What clients ask before they generate: options, models, samplers, and lists that are empty in this version."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import Any

import psutil
from fastapi import APIRouter, Request, Response

from sfumato.api.auth import SdapiCaller
from sfumato.api.sdapi import options
from sfumato.api.sdapi.headers import ignored_header
from sfumato.api.sdapi.state import StateOf
from sfumato.api.sdapi.wire import FieldErrors, SdapiResponse, read_json
from sfumato.api.services import ServicesOf
from sfumato.core.models import ModelInfo
from sfumato.core.sampling import SAMPLERS, SCHEDULES
from sfumato.models.addons import AddOnFile

_ANY_OBJECT = {"content": {"application/json": {"schema": {"type": "object"}}}}

UPSCALERS = ("None", "Lanczos", "Nearest")
_UPSCALER_SCALE = 4

CONSTANT: dict[str, Any] = {
    "upscalers": [
        {"name": name, "model_name": None, "model_path": None, "model_url": None, "scale": _UPSCALER_SCALE}
        for name in UPSCALERS
    ],
    "samplers": [{"name": s.name, "aliases": list(s.aliases), "options": s.options} for s in SAMPLERS],
    "schedulers": [
        {
            "name": s.name,
            "label": s.label,
            "aliases": list(s.aliases) or None,
            "default_rho": s.default_rho,
            "need_inner_model": s.needs_model,
        }
        for s in SCHEDULES
    ],
    "latent-upscale-modes": [],
    "hypernetworks": [],
    "face-restorers": [],
    "realesrgan-models": [],
    "scripts": {"txt2img": [], "img2img": []},
    "script-info": [],
    "extensions": [],
}
"""Answers that are the same for everyone, by the last part of their path."""


async def get_options(state: StateOf, caller: SdapiCaller) -> Response:
    """Show every option with its value."""
    return SdapiResponse(options.show(state.checkpoints, caller.user_id))


async def set_options(request: Request, state: StateOf, caller: SdapiCaller) -> Response:
    """Choose the caller's checkpoint, VAE and way of reading prompts; other options asked otherwise are named."""
    wanted = await read_json(request)
    if not isinstance(wanted, dict):
        raise FieldErrors([{"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}])
    ignored = options.change(state.checkpoints, caller.user_id, wanted)
    return SdapiResponse(None, headers=ignored_header(ignored))


async def list_models(services: ServicesOf, _caller: SdapiCaller) -> Response:
    """List the installed checkpoints; only file names are told, not where they lie."""
    return SdapiResponse([_model(model) for model in services.registry.models])


async def list_vaes(services: ServicesOf, _caller: SdapiCaller) -> Response:
    """List the VAEs that can stand in for a checkpoint's own."""
    return SdapiResponse([{"model_name": vae.name, "filename": vae.name} for vae in services.registry.vaes])


async def refresh_models(services: ServicesOf, _caller: SdapiCaller) -> Response:
    """Look through the folders again for models and VAEs."""
    registry = services.registry
    registry.adopt(await asyncio.to_thread(registry.rescanned))
    return SdapiResponse(None)


async def list_loras(services: ServicesOf, _caller: SdapiCaller) -> Response:
    """List the installed LoRAs; only file names are told, not where they lie."""
    shelf = await asyncio.to_thread(lambda: services.registry.add_ons.loras)
    return SdapiResponse([_lora(file) for file in shelf.files.values()])


async def list_embeddings(services: ServicesOf, state: StateOf, caller: SdapiCaller) -> Response:
    """List the installed embeddings: those that the caller's model takes, and the others with the reason."""
    shelf = await asyncio.to_thread(lambda: services.registry.add_ons.embeddings)
    model = state.checkpoints.of(caller.user_id)
    loaded = {name: _embedding(file) for name, file in shelf.files.items() if file.fits(model)}
    skipped = {
        name: {**_embedding(file), "reason": "It was made for another family than the chosen model's."}
        for name, file in shelf.files.items()
        if not file.fits(model)
    }
    damaged = {name: {**_NO_EMBEDDING, "reason": reason} for name, reason in shelf.skipped.items()}
    return SdapiResponse({"loaded": loaded, "skipped": skipped | damaged})


async def list_styles(state: StateOf, _caller: SdapiCaller) -> Response:
    """List the styles."""
    styles = await asyncio.to_thread(state.styles.styles)
    return SdapiResponse([style.listed() for style in styles])


async def refresh_add_ons(services: ServicesOf, _caller: SdapiCaller) -> Response:
    """Look through the folders of LoRAs and embeddings again."""
    await asyncio.to_thread(services.registry.add_ons.refresh)
    return SdapiResponse(None)


async def show_memory(_caller: SdapiCaller) -> Response:
    """Tell the memory of the server process; the engines' devices are not reported here."""
    process = psutil.Process()
    used, total = process.memory_info().rss, psutil.virtual_memory().total
    return SdapiResponse(
        {"ram": {"free": total - used, "used": used, "total": total}, "cuda": {"error": "unavailable"}}
    )


async def show_flags(services: ServicesOf, _caller: SdapiCaller) -> Response:
    """Show how the server was started, as far as it has the words for it and they are no secret."""
    settings = services.settings
    is_local = settings.host in ("127.0.0.1", "::1", "localhost")
    return SdapiResponse(
        {
            "api": True,
            "api_auth": None,
            "api_server_stop": False,
            "listen": not is_local,
            "nowebui": True,
            "port": settings.port,
            "share": False,
            "subpath": None,
            "use_cpu": ["all"] if settings.device == "cpu" else [],
        }
    )


def add_routes(router: APIRouter) -> None:
    """Add the routes of this module."""
    router.get("/sdapi/v1/options")(get_options)
    router.post("/sdapi/v1/options", openapi_extra={"requestBody": _ANY_OBJECT})(set_options)
    router.get("/sdapi/v1/sd-models")(list_models)
    router.get("/sdapi/v1/sd-vae")(list_vaes)
    router.post("/sdapi/v1/refresh-checkpoints", name="Refresh checkpoints")(refresh_models)
    router.post("/sdapi/v1/refresh-vae", name="Refresh VAEs")(refresh_models)
    router.get("/sdapi/v1/loras")(list_loras)
    router.get("/sdapi/v1/embeddings")(list_embeddings)
    router.get("/sdapi/v1/prompt-styles")(list_styles)
    router.post("/sdapi/v1/refresh-loras", name="Refresh LoRAs")(refresh_add_ons)
    router.post("/sdapi/v1/refresh-embeddings", name="Refresh embeddings")(refresh_add_ons)
    router.get("/sdapi/v1/memory")(show_memory)
    router.get("/sdapi/v1/cmd-flags")(show_flags)
    for name, content in CONSTANT.items():
        router.get(f"/sdapi/v1/{name}", name=f"List {name}")(_constant(content))


_NO_EMBEDDING = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None, "shape": 0, "vectors": 0}


def _lora(file: AddOnFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "alias": file.alias,
        "path": PurePath(file.location).name,
        "metadata": file.metadata,
    }


def _embedding(file: AddOnFile) -> dict[str, Any]:
    return _NO_EMBEDDING | {"shape": sum(file.widths), "vectors": file.vectors}


def _constant(content: Any) -> Callable[..., Awaitable[Response]]:
    async def answer(_caller: SdapiCaller) -> Response:
        return SdapiResponse(content)

    return answer


def _model(model: ModelInfo) -> dict[str, Any]:
    return {
        "title": model.title,
        "model_name": model.name,
        "hash": model.short_hash,
        "sha256": model.sha256,
        "filename": PurePath(model.location).name,
        "config": None,
    }
