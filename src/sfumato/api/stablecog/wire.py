"""JSON as the hosted service, a Go program, reads and writes it.

Knows numbers, texts, identifiers and times on this wire; knows no route and no field.
"""

import json
import math
import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from fastapi import Request, Response
from pydantic import BaseModel, ValidationError

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_UUID = re.compile(
    r"(?:urn:uuid:)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"|\{([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}"
    r"|([0-9a-f]{32})",
    re.IGNORECASE,
)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)

Body = TypeVar("Body", bound=BaseModel)


class JsonParseError(Exception):
    """The body is not JSON of the expected shape; the wire has one answer for all such cases."""


class GoResponse(Response):
    """Compact JSON with Go's escapes, a final newline and no charset."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for character, escape in _ESCAPES.items():
            text = text.replace(character, escape)
        return text.encode() + b"\n"


async def read_body(request: Request, shape: type[Body]) -> Body:
    """Read the request's body as `shape`, whatever its Content-Type.

    Names match in any case, null means absent, unknown names are dropped, and `null` alone is an object without
    fields. Raises `JsonParseError` for anything else that is not exactly of the shape.
    """
    parsed = parse_json(await request.body())
    if parsed is None:
        parsed = {}
    if not isinstance(parsed, dict):
        raise JsonParseError
    names = {name.casefold(): name for name in shape.model_fields}
    given = ((names.get(key.casefold()), value) for key, value in parsed.items() if value is not None)
    try:
        return shape.model_validate({name: value for name, value in given if name is not None})
    except ValidationError:
        raise JsonParseError from None


def parse_json(body: bytes) -> Any:
    """Parse strict JSON; raise `JsonParseError`. Broken UTF-8 becomes U+FFFD, as Go has it."""
    try:
        parsed = json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise JsonParseError from None
    return parsed


def _refuse_constant(name: str) -> None:
    # Python's parser knows NaN and Infinity, which JSON does not.
    raise ValueError(name)


def parse_uuid(text: str) -> UUID:
    """Read any of the four spellings the hosted service takes; raise `ValueError` for others."""
    found = _UUID.fullmatch(text)
    if found is None:
        raise ValueError("not a UUID")
    return UUID(next(group for group in found.groups() if group))


def float32(value: float) -> float:
    """Round to single precision and return the shortest number that reads back as it; raise `OverflowError`."""
    single = _single(value)
    if not math.isfinite(single):
        raise OverflowError("beyond single precision")
    shortest = (float(f"{single:.{digits}g}") for digits in range(1, 10))
    return next(short for short in shortest if _single(short) == single)


def _single(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.inf


def number(value: float) -> int | float:
    """Return what prints without a trailing `.0`."""
    return int(value) if value == int(value) else value


def format_time(moment: datetime, *, nanoseconds: int = 0) -> str:
    """Write RFC 3339 in UTC with trailing zeros of the fraction trimmed; `nanoseconds` (0 to 999) extend it."""
    utc = moment.astimezone(UTC)
    fraction = f"{utc.microsecond:06d}{nanoseconds:03d}".rstrip("0")
    return f"{utc:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"


def parse_time(text: str) -> tuple[datetime, int]:
    """Read strict RFC 3339 into a moment of whole microseconds and the nanoseconds beyond; raise `ValueError`."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("not RFC 3339")
    day, clock, fraction, zone = found.groups()
    nanoseconds = int((fraction or "").ljust(9, "0"))
    local = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    try:
        moment = local.astimezone(UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        raise ValueError("out of range") from None
    return moment, nanoseconds % 1000
