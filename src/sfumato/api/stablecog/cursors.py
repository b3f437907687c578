"""The page cursor: a time as RFC 3339, as the hosted service has it, but exact.

There, a cursor is the creation time of a page's last output and the next page is what is older, so outputs made at
the same moment as that one are lost. Our times have whole microseconds; the three digits beyond say how many outputs
of that very moment have been shown (none written: all of them). Cursors of the plain kind mean the same as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sfumato.api.stablecog.wire import format_time, parse_time

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Cursor:
    """A place in the listing: after the first `shown` outputs of `moment`, or after all of them when 0."""

    moment: datetime
    shown: int = 0

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read what a client sends; raise `ValueError`."""
        return cls(*parse_time(text))

    def __str__(self) -> str:
        return format_time(self.moment, nanoseconds=self.shown)

    def start(self, *, ascending: bool) -> datetime:
        """Return the time that a query for outputs beyond it must use; it finds `shown` outputs too many."""
        if not self.shown:
            return self.moment
        return self.moment - _TICK if ascending else self.moment + _TICK


def next_cursor(shown: Sequence[datetime], following: datetime, after: Cursor | None) -> Cursor:
    """Return the cursor behind a page of outputs made at `shown`, read from `after`; `following` comes next."""
    last = shown[-1]
    if last != following:
        return Cursor(last)
    before = after.shown if after is not None and after.moment == last else 0
    return Cursor(last, before + sum(moment == last for moment in shown))
