"""How many calls a second maintd may make: one bucket of tokens for everything that is asked of Nova and Placement.

In any ten seconds it is never more than `BURST` and ten times `RATE`, 96 calls: ten a second is what an operator was
promised, whatever goes on. What cannot wait (a proof, the end of a migration) may empty the bucket; what can wait
(reconcile, progress, lists) leaves a reserve in it. So a big reconcile slows down, and `host.emptied` does not. A proof
is two passes of some eight calls, so hosts that become empty in the same moment wait for one another.

What can wait must not wait for ever: while a hundred hosts are proven there would be no look at the services, and so no
word of a compute that dies. Of every few tokens one goes to who has waited longest, in line, however much is urgent.

Nothing is queued and nothing is dropped here: who asks for a token waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from maintd.clock import Clock

RATE = 9.0
BURST = 6.0
RESERVE = 3.0
SHARE = 4
"""One token in so many goes to what can wait, if something does."""
URGENT = frozenset({"verify", "end"})
LOOK_S = 0.25
"""How long who waits sleeps at most before looking again: its turn may come early."""


class Budget:
    """A token bucket: `rate` calls a second in the long run, `burst` at once. Thread-safe.

    `wait(seconds)` sleeps and returns True once the daemon is stopping; then no more tokens are given.
    """

    def __init__(
        self,
        clock: Clock,
        wait: Callable[[float], bool],
        *,
        rate: float = RATE,
        burst: float = BURST,
        reserve: float = RESERVE,
    ) -> None:
        self._clock = clock
        self._wait = wait
        self._rate = rate
        self._burst = burst
        self._reserve = reserve
        self._lock = threading.Lock()
        self._tokens = burst
        self._filled_at = clock.monotonic()
        self._line: deque[object] = deque()  # who can wait and does, longest first
        self._passed_over = 0  # how many urgent ones have gone before the first of them

    def take(self, purpose: str | None) -> bool:
        """Wait for a token; False once the daemon is stopping, and then nothing may be asked any more."""
        ticket = None if purpose in URGENT else object()
        if ticket is not None:
            with self._lock:
                self._line.append(ticket)
        while True:
            with self._lock:
                missing = self._missing(ticket)
                if missing <= 1e-6:
                    self._take(ticket)
                    return True
            if self._wait(min(max(missing / self._rate, 0.001), LOOK_S)):
                if ticket is not None:
                    with self._lock:
                        self._line.remove(ticket)
                return False

    def _missing(self, ticket: object | None) -> float:
        """How many tokens the bucket lacks for this one to go ahead."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        owed = bool(self._line) and self._passed_over >= SHARE - 1
        if ticket is None:
            ahead = 1.0 if owed else 0.0
        else:
            ahead = (0.0 if owed else self._reserve) + self._line.index(ticket)
        return ahead + 1.0 - self._tokens

    def _take(self, ticket: object | None) -> None:
        self._tokens -= 1.0
        if ticket is not None:
            self._line.remove(ticket)
            self._passed_over = 0
        elif self._line:
            self._passed_over += 1
