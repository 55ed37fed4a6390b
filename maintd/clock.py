"""The only place that asks what time it is.

Everything else is handed a `Clock`, so that tests and replay decide the time. Times are seconds since the epoch,
UTC, as floats; `monotonic` is for measuring and for watchdogs. Nothing here sleeps.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What a part that needs the time is given."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point, never running backwards."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, at: float = 0.0) -> None:
        self._at = at

    def now(self) -> float:
        return self._at

    def monotonic(self) -> float:
        return self._at

    def advance(self, seconds: float) -> float:
        """Move on by so many seconds; the new time is returned."""
        self._at += seconds
        return self._at

    def move_to(self, at: float) -> None:
        """Move to a moment; a moment already passed leaves the clock where it is."""
        self._at = max(self._at, at)
