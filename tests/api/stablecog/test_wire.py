"""JSON, numbers, identifiers and times as a Go program has them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.api.stablecog.wire import (
    GoResponse,
    JsonParseError,
    float32,
    format_time,
    number,
    parse_json,
    parse_time,
    parse_uuid,
)

NOON = datetime(2023, 5, 27, 12, 0, 0, tzinfo=UTC)
ID = UUID("6fb13b76-9900-4fa4-abf8-8f843e034a7f")


def test_answers_are_compact_escaped_and_end_in_a_newline() -> None:
    response = GoResponse({"a": "<b> & é \u2028", "n": [1, 7.5, None, True]})
    assert response.body == '{"a":"\\u003cb\\u003e \\u0026 é \\u2028","n":[1,7.5,null,true]}\n'.encode()
    assert response.headers["content-type"] == "application/json"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_answers_read_back_as_what_was_written(content: object) -> None:
    assert json.loads(GoResponse(content).body) == content


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}x", b'{"a":NaN}', b'{"a":Infinity}', b"\xef\xbb\xbf{}", b"[" * 100_000, b"1" * 5000, b"{'a':1}"],
)
def test_what_is_not_json_is_told(body: bytes) -> None:
    with pytest.raises(JsonParseError):
        parse_json(body)


def test_broken_utf8_is_replaced() -> None:
    assert parse_json(b'{"a":"\xff"}') == {"a": "\ufffd"}


@pytest.mark.parametrize(
    "text",
    [str(ID), str(ID).upper(), f"urn:uuid:{ID}", f"URN:UUID:{ID}", f"{{{ID}}}", ID.hex],
)
def test_identifiers_are_read_in_four_spellings(text: str) -> None:
    assert parse_uuid(text) == ID


@pytest.mark.parametrize("text", ["", "x", str(ID)[:-1], f"({ID})", f" {ID}", f"{{{ID.hex}}}", f"{ID}\n", "٣" * 32])
def test_other_identifiers_are_not(text: str) -> None:
    with pytest.raises(ValueError):
        parse_uuid(text)


@pytest.mark.parametrize(("value", "text"), [(7.0, "7"), (7.5, "7.5"), (0.35, "0.35"), (1.1, "1.1"), (20, "20")])
def test_single_precision_prints_in_its_shortest_form(value: float, text: str) -> None:
    assert json.dumps(number(float32(value))) == text


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_single_precision_survives_its_shortest_form(value: float) -> None:
    assert float32(float32(value)) == float32(value)
    assert float32(value) == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (NOON, "2023-05-27T12:00:00Z"),
        (NOON + timedelta(microseconds=793400), "2023-05-27T12:00:00.7934Z"),
        (NOON + timedelta(microseconds=1), "2023-05-27T12:00:00.000001Z"),
        (NOON.astimezone(timezone(timedelta(hours=2))), "2023-05-27T12:00:00Z"),
    ],
)
def test_times_are_in_utc_with_zeros_trimmed(moment: datetime, text: str) -> None:
    assert format_time(moment) == text
    assert parse_time(text) == (moment, 0)


@given(
    st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)),
    st.integers(min_value=0, max_value=999),
)
def test_times_and_their_nanoseconds_survive_the_wire(moment: datetime, nanoseconds: int) -> None:
    assert parse_time(format_time(moment, nanoseconds=nanoseconds)) == (moment, nanoseconds)


def test_a_time_may_have_any_zone() -> None:
    assert parse_time("2023-05-27T14:30:00+02:30") == (NOON, 0)


@pytest.mark.parametrize(
    "text",
    [
        "2023-05-27T12:00:00",
        "2023-05-27 12:00:00Z",
        "2023-05-27",
        "2023-05-27T12:00:00.Z",
        "2023-05-27T12:00:00.1234567891Z",
        "2023-13-27T12:00:00Z",
        "2023-05-27T12:00:00+0200",
        "2023-05-27T12:00:00 02:00",
        "0001-01-01T00:00:00+23:00",
        "yesterday",
        "٢٠٢٣-05-27T12:00:00Z",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)
