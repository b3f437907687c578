"""Field types that read values as pydantic v1 did, with its error texts and types.

AUTOMATIC1111 is pinned to pydantic v1 and clients have only ever seen its rules: a number from text, an integer by
truncation, a text from a number, a truth value from "yes". pydantic v2 reads differently, so each type here coerces
before pydantic checks.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from sfumato.api.texts import clean_text

_TRUE = (True, 1, "1", "on", "t", "true", "y", "yes")
_FALSE = (False, 0, "0", "off", "f", "false", "n", "no")


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        raise PydanticCustomError("type_error.integer", "value is not a valid integer") from None


def _number(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):  # upstream lets "nan" pass and fails later
        raise PydanticCustomError("type_error.float", "value is not a valid float")
    return number


def _text(value: object) -> str:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (int, float)):
        return str(value)
    raise PydanticCustomError("type_error.str", "str type expected")


def _truth(value: object) -> bool:
    word = value.lower() if isinstance(value, str) else value
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise PydanticCustomError("type_error.bool", "value could not be parsed to a boolean")


def _sequence(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    raise PydanticCustomError("type_error.list", "value is not a valid list")


def _mapping(value: object) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    try:
        return dict(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        raise PydanticCustomError("type_error.dict", "value is not a valid dict") from None


def _seed(value: object) -> int:
    # The field table counts "" as "pick one", which the type alone would refuse.
    return -1 if value == "" else _integer(value)


def _or_none(read: Callable[[object], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: None if value is None else read(value))


def _required(read: Callable[[object], Any]) -> BeforeValidator:
    def validate(value: object) -> Any:
        if value is None:
            raise PydanticCustomError("type_error.none.not_allowed", "none is not an allowed value")
        return read(value)

    return BeforeValidator(validate)


Integer = Annotated[int | None, _or_none(_integer)]
Seed = Annotated[int | None, _or_none(_seed)]
Number = Annotated[float | None, _or_none(_number)]
Text = Annotated[str | None, _or_none(_text)]
Truth = Annotated[bool | None, _or_none(_truth)]
Mapping = Annotated[dict[Any, Any] | None, _or_none(_mapping)]
Texts = Annotated[list[Annotated[str, _required(_text)]] | None, _or_none(_sequence)]

RequiredText = Annotated[str, _required(_text)]
RequiredTruth = Annotated[bool, _required(_truth)]
RequiredSequence = Annotated[list[Any], _required(_sequence)]
RequiredMapping = Annotated[dict[Any, Any], _required(_mapping)]
