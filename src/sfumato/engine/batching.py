"""Two small policies of the denoise loop: which bucket is served next, and how wide a batch pays."""

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

MEMORY = 0.3
"""Share of the newest measurement in a running mean."""

GAIN = 0.97
"""A wider batch pays if a row then takes at most this share of its time in the narrower."""

RETRY_TURNS = 500
"""After so many turns a width once found not to pay is tried again: the measurement may have been a neighbour's."""


class BucketShares(Generic[Key]):
    """Shares a device between buckets by the time they have used it: start-time fair queueing (Goyal et al. 1996).

    A bucket that comes back after being empty starts level with the others, not with the time it did not use.
    """

    def __init__(self) -> None:
        self._used: dict[Key, float] = {}

    def next(self, waiting: Collection[Key]) -> Key:
        """Return the waiting bucket that has used the device least; forgets buckets that are no longer waiting."""
        known = [self._used[key] for key in waiting if key in self._used]
        level = min(known, default=0.0)
        self._used = {key: self._used.get(key, level) for key in waiting}
        return min(self._used, key=lambda key: self._used[key])

    def charge(self, key: Key, seconds: float) -> None:
        """Note device time used by a bucket."""
        self._used[key] = self._used.get(key, 0.0) + seconds


class WidthTuner:
    """Finds a bucket's greatest useful width from the turns as they run.

    Widths fall into classes 1, 2, 3-4, 5-8, ... A class is used once the narrower one is known, and kept while a row
    in it takes less time than in the narrower.
    """

    def __init__(self, widest: int) -> None:
        self._widest = widest
        self._seconds_per_row: dict[int, float] = {}
        self._warm: set[int] = set()
        self._turns = 0

    def width(self, available: int) -> int:
        """Return how many of the available rows to take."""
        return min(available, self.cap, self._widest)

    @property
    def cap(self) -> int:
        """The greatest width that pays, or is yet to be tried."""
        level = 1  # a guided picture's two rows always go together
        while (known := self._seconds_per_row.get(level)) is not None and 2**level < self._widest:
            wider = self._seconds_per_row.get(level + 1)
            if wider is not None and wider > known * GAIN:
                break
            level += 1
        return int(2**level)

    def record(self, width: int, seconds: float) -> None:
        """Note how long a turn of this width took."""
        level = (width - 1).bit_length()
        self._turns += 1
        if level not in self._warm:  # the first pass of a shape also builds its kernels
            self._warm.add(level)
            return
        if self._turns % RETRY_TURNS == 0:
            self._seconds_per_row = {k: v for k, v in self._seconds_per_row.items() if 2**k <= self.cap}
        per_row = seconds / width
        old = self._seconds_per_row.get(level, per_row)
        self._seconds_per_row[level] = old + MEMORY * (per_row - old)
