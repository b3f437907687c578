"""The query string of the outputs listing, read with the hosted service's words for what is wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from starlette.datastructures import QueryParams

from sfumato.api.stablecog.cursors import Cursor
from sfumato.api.stablecog.wire import parse_time, parse_uuid
from sfumato.core.errors import InvalidRequest, NotSupported, UnknownModel
from sfumato.models.registry import ModelRegistry
from sfumato.storage.jobs import OutputFilter

Value = TypeVar("Value")

DEFAULT_PER_PAGE, MAX_PER_PAGE = 50, 300

_GALLERY_STATUSES = ("approved", "rejected", "submitted", "not_submitted", "waiting_for_approval")
LATER_FILTERS = (
    *("search", "score_threshold", "oversampling", "scheduler_ids", "aspect_ratio", "upscaled", "prompt_id"),
    *("min_width", "max_width", "min_height", "max_height", "widths", "heights", "username", "order_by", "sort"),
    *("min_inference_steps", "max_inference_steps", "inference_steps", "is_liked", "was_auto_submitted"),
    *("min_guidance_scale", "max_guidance_scale", "guidance_scales"),
    *("aesthetic_artifact_score_gte", "aesthetic_artifact_score_lte"),
    *("aesthetic_rating_score_gte", "aesthetic_rating_score_lte"),
)
"""Filters of the hosted service that this version does not have."""


@dataclass(frozen=True, kw_only=True)
class OutputsQuery:
    """Which outputs to list, from where and how many."""

    per_page: int
    cursor: Cursor | None
    ascending: bool
    where: OutputFilter


def read_query(parameters: QueryParams, registry: ModelRegistry) -> OutputsQuery:
    """Read and check the parameters, the first of each name; raise `InvalidRequest` with the hosted service's text."""
    first = {name: parameters.getlist(name)[0] for name in parameters}
    return OutputsQuery(
        per_page=_read_per_page(first.get("per_page", "")),
        where=_read_filter(first, registry),
        ascending=_read_ascending(first.get("order", "")),
        cursor=_read_cursor(first.get("cursor", "")),
    )


def _read_per_page(text: str) -> int:
    if not text:
        return DEFAULT_PER_PAGE
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdecimal()):
        raise InvalidRequest("per_page must be an integer")
    # A number too long for a machine word is out of range there and here.
    wanted = int(text[:10])
    if not 1 <= wanted <= MAX_PER_PAGE:
        raise InvalidRequest(f"per_page must be between 1 and {MAX_PER_PAGE}")
    return wanted


def _read_filter(first: dict[str, str], registry: ModelRegistry) -> OutputFilter:
    for name in LATER_FILTERS:
        if first.get(name):
            raise NotSupported(f"The filter {name} is not supported by this version of Sfumato.", field=name)
    return OutputFilter(
        models=[_model_name(item, registry) for item in _items(first, "model_ids")],
        gallery_statuses=[_gallery_status(item) for item in _items(first, "gallery_status")],
        is_favorited=_truth("is_favorited", first.get("is_favorited", "")),
        created_from=_time("start_dt", first.get("start_dt", "")),
        created_before=_time("end_dt", first.get("end_dt", "")),
    )


def _read_ascending(text: str) -> bool:
    if text not in ("", "asc", "desc"):
        raise InvalidRequest(f"invalid order: '{text}' expected 'asc' or 'desc'")
    return text == "asc"


def _read_cursor(text: str) -> Cursor | None:
    return _read(Cursor.parse, text, "cursor must be a valid iso time string") if text else None


def _items(first: dict[str, str], name: str) -> list[str]:
    text = first.get(name, "")
    return text.split(",") if text else []


def _model_name(text: str, registry: ModelRegistry) -> str:
    model_id = _read(parse_uuid, text, f"invalid model id: {text}")
    try:
        return registry.by_id(model_id).name
    except UnknownModel:
        return str(model_id)  # which is no model's name: nothing was made with it


def _gallery_status(text: str) -> str:
    if text not in _GALLERY_STATUSES:
        raise InvalidRequest(
            f"invalid gallery_status: '{text}' expected 'approved', 'rejected', 'submitted', not_submitted,"
            " or 'waiting_for_approval'"
        )
    return text


def _truth(name: str, text: str) -> bool | None:
    if text not in ("", "true", "false"):
        raise InvalidRequest(f"invalid {name}: '{text}' expected 'true' or 'false'")
    return text == "true" if text else None


def _time(name: str, text: str) -> datetime | None:
    return _read(parse_time, text, f"invalid {name}: {text}")[0] if text else None


def _read(parse: Callable[[str], Value], text: str, otherwise: str) -> Value:
    try:
        return parse(text)
    except ValueError:
        raise InvalidRequest(otherwise) from None
