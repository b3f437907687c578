"""The OpenAPI document: bodies that are read by hand, and what authentication each route takes."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from sfumato.api.public import is_public

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `sc-` and 64 hex digits."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "For AUTOMATIC1111 clients: any user name, and an API key as the password.",
    },
}

_TAGS = {"/v1/": "Stablecog", "/sdapi/": "AUTOMATIC1111", "/internal/": "AUTOMATIC1111"}


def body_of(shape: type[BaseModel]) -> dict[str, Any]:
    """Return the OpenAPI description of a JSON body."""
    return {"requestBody": {"content": {"application/json": {"schema": shape.model_json_schema()}}}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the document, with `security` on every route that is not public."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        document.setdefault("components", {})["securitySchemes"] = _SCHEMES
        for route, operation in _operations(app, document):
            operation["tags"] = [_tag(route.path_format)]
            if not is_public(route):
                operation["security"] = _security(route.path_format)
        app.openapi_schema = document
    return app.openapi_schema


def _operations(app: FastAPI, document: dict[str, Any]) -> Iterator[tuple[APIRoute, dict[str, Any]]]:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                yield route, document["paths"][route.path_format][method.lower()]


def _tag(path: str) -> str:
    return next((tag for prefix, tag in _TAGS.items() if path.startswith(prefix)), "Sfumato")


def _security(path: str) -> list[dict[str, list[str]]]:
    return [{"bearer": []}] if path.startswith("/v1/") else [{"bearer": []}, {"basic": []}]
