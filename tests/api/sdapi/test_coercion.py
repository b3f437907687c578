"""Values are read as pydantic v1 read them, and refused in its words (section 2.2 of the contract)."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sfumato.api.sdapi import coercion as c


def read(kind: Any, value: object) -> Any:
    return TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (c.Integer, 20, 20),
        (c.Integer, "20", 20),
        (c.Integer, " 20 ", 20),
        (c.Integer, 20.7, 20),
        (c.Integer, -20.7, -20),
        (c.Integer, True, 1),
        (c.Integer, None, None),
        (c.Seed, "", -1),
        (c.Seed, "7", 7),
        (c.Number, 7, 7.0),
        (c.Number, "7.5", 7.5),
        (c.Number, True, 1.0),
        (c.Text, "a", "a"),
        (c.Text, 5, "5"),
        (c.Text, 5.5, "5.5"),
        (c.Text, True, "True"),
        (c.Text, None, None),
        (c.Truth, "yes", True),
        (c.Truth, "ON", True),
        (c.Truth, 1, True),
        (c.Truth, "f", False),
        (c.Truth, 0, False),
        (c.Mapping, [], {}),
        (c.Mapping, [["a", 1]], {"a": 1}),
        (c.Texts, ["a", 1], ["a", "1"]),
    ],
)
def test_v1_coercions(kind: Any, value: object, result: object) -> None:
    found = read(kind, value)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("kind", "value", "message", "error_type"),
    [
        (c.Integer, "x", "value is not a valid integer", "type_error.integer"),
        (c.Integer, "20.7", "value is not a valid integer", "type_error.integer"),
        (c.Integer, [1], "value is not a valid integer", "type_error.integer"),
        (c.Integer, "9" * 5000, "value is not a valid integer", "type_error.integer"),
        (c.Number, "x", "value is not a valid float", "type_error.float"),
        (c.Number, {}, "value is not a valid float", "type_error.float"),
        (c.Number, "nan", "value is not a valid float", "type_error.float"),
        (c.Number, "1e999", "value is not a valid float", "type_error.float"),
        (c.Text, ["a"], "str type expected", "type_error.str"),
        (c.Truth, "maybe", "value could not be parsed to a boolean", "type_error.bool"),
        (c.Truth, 2, "value could not be parsed to a boolean", "type_error.bool"),
        (c.Truth, [], "value could not be parsed to a boolean", "type_error.bool"),
        (c.Texts, "a", "value is not a valid list", "type_error.list"),
        (c.Mapping, "a", "value is not a valid dict", "type_error.dict"),
        (c.Mapping, 3, "value is not a valid dict", "type_error.dict"),
        (c.RequiredText, None, "none is not an allowed value", "type_error.none.not_allowed"),
        (c.RequiredTruth, None, "none is not an allowed value", "type_error.none.not_allowed"),
        (c.RequiredSequence, None, "none is not an allowed value", "type_error.none.not_allowed"),
        (c.RequiredMapping, None, "none is not an allowed value", "type_error.none.not_allowed"),
    ],
)
def test_v1_errors(kind: Any, value: object, message: str, error_type: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(kind, value)
    (error,) = caught.value.errors()
    assert (error["msg"], error["type"]) == (message, error_type)


def test_texts_are_made_fit_for_utf8() -> None:
    assert read(c.Text, "a\ud800b\x00c") == "a\ufffdbc"
