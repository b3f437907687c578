"""The start page and the API documentation. Both work offline: every byte comes from this server."""

import html
import importlib.resources
from functools import cache
from string import Template

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

import sfumato
from sfumato.api.public import public
from sfumato.api.services import ServicesOf, base_url
from sfumato.core.errors import NotFound

_PAGE_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ASSETS = {
    "swagger-ui-bundle.js": ("fastapi_offline", "static/swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": ("fastapi_offline", "static/swagger-ui.css", "text/css"),
    "start.js": ("sfumato", "web/docs.js", "text/javascript"),
}
"""Swagger UI's own files, as a package carries them, and the line that starts it."""


@public
async def show_page(request: Request, services: ServicesOf) -> Response:
    """Say what runs here and how to use it."""
    default = services.registry.default
    models = [
        f"<li>{html.escape(model.name)}{' (default)' if model.id == default.id else ''}</li>"
        for model in services.registry.models
    ]
    page = Template(_text("web/index.html")).substitute(
        version=html.escape(sfumato.__version__),
        state="It is ready." if services.service.is_ready else "Its engine is starting.",
        models="\n".join(models),
        base=html.escape(base_url(request)),
    )
    return HTMLResponse(page, headers=_headers(_PAGE_POLICY))


@public
async def show_style() -> Response:
    """Send the page's style sheet."""
    return Response(_text("web/page.css"), media_type="text/css")


@public
async def show_docs() -> Response:
    """Show the OpenAPI document as a page to read and to try."""
    return HTMLResponse(_text("web/docs.html"), headers=_headers(_DOCS_POLICY))


@public
async def show_docs_asset(name: str) -> Response:
    """Send a file of the documentation page."""
    if name not in _ASSETS:
        raise NotFound("There is no such file.")
    package, path, media_type = _ASSETS[name]
    return Response(_bytes(package, path), media_type=media_type, headers={"Cache-Control": "max-age=3600"})


@public
async def show_openapi(request: Request) -> Response:
    """Send the OpenAPI document."""
    return JSONResponse(request.app.openapi())


def add_routes(router: APIRouter) -> None:
    """Add the routes of this module; none is part of the API it documents."""
    for path, endpoint in (
        ("/", show_page),
        ("/page.css", show_style),
        ("/docs", show_docs),
        ("/docs/{name}", show_docs_asset),
        ("/openapi.json", show_openapi),
    ):
        router.get(path, include_in_schema=False)(endpoint)


def _headers(policy: str) -> dict[str, str]:
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}


@cache
def _bytes(package: str, path: str) -> bytes:
    return (importlib.resources.files(package) / path).read_bytes()


def _text(path: str) -> str:
    return _bytes("sfumato", path).decode()
