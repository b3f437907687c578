"""Pages over equal creation times neither skip nor repeat."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sfumato.api.stablecog.cursors import Cursor, next_cursor

START = datetime(2025, 11, 6, 10, tzinfo=UTC)


def test_a_cursor_is_the_plain_time_while_times_differ() -> None:
    last = START + timedelta(microseconds=123400)
    cursor = next_cursor([START + timedelta(seconds=1), last], START, None)
    assert str(cursor) == "2025-11-06T10:00:00.1234Z"
    assert Cursor.parse(str(cursor)) == cursor


def test_a_cursor_counts_what_it_has_shown_of_a_moment() -> None:
    assert str(next_cursor([START, START], START, None)) == "2025-11-06T10:00:00.000000002Z"
    assert next_cursor([START], START, Cursor(START, 2)).shown == 3


@given(
    st.lists(st.integers(min_value=0, max_value=5), max_size=40),
    st.integers(min_value=1, max_value=7),
    st.booleans(),
)
def test_all_pages_together_are_the_whole_list(ticks: list[int], per_page: int, ascending: bool) -> None:
    everything = sorted(
        ((START + timedelta(microseconds=tick), number) for number, tick in enumerate(ticks)), reverse=not ascending
    )
    seen: list[tuple[datetime, int]] = []
    cursor: Cursor | None = None
    for _ in range(len(everything) + 1):
        beyond = everything
        if cursor is not None:
            start = cursor.start(ascending=ascending)
            beyond = [item for item in everything if (item[0] > start if ascending else item[0] < start)]
            beyond = beyond[cursor.shown :]
        seen += beyond[:per_page]
        if len(beyond) <= per_page:
            break
        following = beyond[per_page][0]
        cursor = Cursor.parse(str(next_cursor([moment for moment, _ in beyond[:per_page]], following, cursor)))
    assert seen == everything
