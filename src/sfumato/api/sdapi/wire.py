"""Bodies, answers and errors in AUTOMATIC1111's shapes.

There are three error shapes: a list of field errors (422), an object with four keys for whatever a handler raises,
and a bare `detail` for routes and methods that do not exist.
"""

import json
import math
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

Body = TypeVar("Body", bound=BaseModel)


class FieldErrors(Exception):
    """The body does not fit the schema; `errors` are entries of FastAPI's `detail` list."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("the body does not fit the schema")
        self.errors = errors


class SdapiResponse(Response):
    """Compact JSON. What a request echoes may hold characters UTF-8 cannot carry; they come back as `?`."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def error_body(text: str, *, hint: str = "") -> dict[str, str]:
    """Return the object AUTOMATIC1111 sends for an HTTPException; `errors`, empty there, carries our hint."""
    return {"error": "HTTPException", "detail": text, "body": "", "errors": hint}


def exception_body(name: str, text: str) -> dict[str, str]:
    """Return the object AUTOMATIC1111 sends for any other Python exception."""
    return {"error": name, "detail": "", "body": "", "errors": text}


async def read_json(request: Request) -> Any:
    """Parse the body whatever its Content-Type; raise `FieldErrors` for what is not JSON, NaN and Infinity included."""
    body = await request.body()
    if not body:
        raise FieldErrors([_missing(["body"])])
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise FieldErrors([_not_json(error.msg, error.pos)]) from None
    except (ValueError, RecursionError) as error:
        raise FieldErrors([_not_json(str(error), 0)]) from None


async def read_body(request: Request, shape: type[Body]) -> Body:
    """Read the body as `shape` with pydantic v1's rules and error texts; raise `FieldErrors`."""
    parsed = await read_json(request)
    if parsed is None:
        raise FieldErrors([_missing(["body"])])
    if not isinstance(parsed, dict):
        raise FieldErrors([{"loc": ["body"], "msg": "value is not a valid dict", "type": "type_error.dict"}])
    try:
        return shape.model_validate(parsed)
    except ValidationError as error:
        raise FieldErrors([_entry(item) for item in error.errors(include_url=False, include_input=False)]) from None


def _entry(item: Any) -> dict[str, Any]:
    if item["type"] == "missing":
        return _missing(["body", *item["loc"]])
    return {"loc": ["body", *item["loc"]], "msg": item["msg"], "type": item["type"]}


def _missing(place: list[str | int]) -> dict[str, Any]:
    return {"loc": place, "msg": "field required", "type": "value_error.missing"}


def _not_json(text: str, position: int) -> dict[str, Any]:
    return {"loc": ["body", position], "msg": text, "type": "value_error.jsondecode"}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value
