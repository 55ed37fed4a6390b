"""How many callers may hold a thread of the API's server at once, for what takes long.

Whoever waits for events, or for what a subscriber's endpoint answers, holds one thread of a few for as long as it
waits. So there are only so many seats of each kind; whoever finds none is refused at once, with 503 and when to come
back, and everybody else's requests stay prompt. One holder gets a share, so that nobody can keep all the others out.
Nobody queues here.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Final

import falcon

from maintd.errors import MaintdError

COME_BACK_S: Final = 5
"""When whoever found no seat may try again."""


class NoSeat(MaintdError):
    """Too many sit already; the message is the sentence."""


class Seats:
    """`total` of what a text calls them, and `each` of these for one holder. `spare` are for operators only."""

    def __init__(
        self, total: int, what: str = "streams and long polls", *, each: int | None = None, spare: int = 0
    ) -> None:
        """Without `each`, one holder may have half of them."""
        self.total = total
        self.each = each or max(1, total // 2)
        self._what = what
        self._spare = spare
        self._lock = threading.Lock()
        self._taken: Counter[str | None] = Counter()

    def take(self, holder: str | None) -> Seat:
        """A seat, to be closed by whoever took it; None is an operator, who is not held to a share. Raises NoSeat."""
        free = self.total if holder is None else self.total - self._spare
        with self._lock:
            if self._taken.total() >= free:
                raise NoSeat(f"All {free} {self._what} that there are for you are taken.")
            if holder is not None and self._taken[holder] >= self.each:
                raise NoSeat(
                    f"You hold {self.each} of the {self.total} {self._what} already, which is all that one caller may."
                )
            self._taken[holder] += 1
        return Seat(self, holder)

    def leave(self, holder: str | None) -> None:
        with self._lock:
            self._taken[holder] -= 1
            if not self._taken[holder]:
                del self._taken[holder]

    @property
    def taken(self) -> int:
        with self._lock:
            return self._taken.total()


class Seat:
    """One that is taken."""

    def __init__(self, seats: Seats, holder: str | None) -> None:
        self._seats, self._holder = seats, holder
        self._left = False

    def close(self) -> None:
        """Give it up; once or more often."""
        if not self._left:
            self._left = True
            self._seats.leave(self._holder)


def come_back(title: str, refused: NoSeat) -> falcon.HTTPServiceUnavailable:
    """The error for whoever found no seat."""
    return falcon.HTTPServiceUnavailable(
        title=title, description=f"{refused} Ask again later.", retry_after=COME_BACK_S
    )
