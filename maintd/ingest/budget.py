"""How many calls a second maintd may make: one bucket of tokens for everything that is asked of Nova and Placement.

What cannot wait (a proof, the end of a migration) may empty the bucket; what can wait (reconcile, progress, lists)
leaves a reserve in it. So a big reconcile slows down, and `host.emptied` does not. In any ten seconds it is 110 calls
at most; a proof is two passes of some eight calls, so hosts that become empty in the same moment wait for one another.
Nothing is queued and nothing is dropped here: who asks for a token waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from maintd.clock import Clock

RATE = 8.0
BURST = 30.0
RESERVE = 20.0
URGENT = frozenset({"verify", "end"})


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

    def take(self, purpose: str | None) -> bool:
        """Wait for a token; False once the daemon is stopping, and then nothing may be asked any more."""
        floor = 0.0 if purpose in URGENT else self._reserve
        while True:
            with self._lock:
                now = self._clock.monotonic()
                self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
                self._filled_at = now
                missing = floor + 1.0 - self._tokens
                if missing <= 1e-9:
                    self._tokens -= 1.0
                    return True
            if self._wait(min(missing / self._rate, 1.0)):
                return False
