"""When to try a delivery again, as a value: never a loop, never a sleep.

The schedule is dense at its start, because an HA manager that restarts wants the event seconds later, and long at its
end, because an operator who comes to work in the morning wants last night's events. Each delay is drawn uniformly
between nothing and its full length ("full jitter"): a receiver that comes back is not met by everybody at once.

Pure. The random number comes in as an argument, as the time does; the same arguments give the same decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from maintd.delivery.outcome import Outcome

SCHEDULE_S: Final = (0.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18000.0, 36000.0)
"""SCHEDULE_S[n] is the longest wait before attempt n + 1: the first is at once, the ninth up to 10 hours later."""

RETRY_AFTER_CAP_S: Final = 3600.0
"""A receiver may ask for patience, but not for more than this: an absurd header must not bury an event."""

GIVE_UP_AFTER_S: Final = 86400.0
"""A delivery this old is not tried again once an attempt fails.

Without it the events queued behind a dead receiver's first one would each start the whole schedule anew, and be
delivered weeks late. Each still gets one attempt of its own.
"""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at this moment (epoch seconds)."""

    at: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Stop trying. The delivery is kept, listed and can be redelivered by hand; `reason` is for people."""

    reason: str


def next_attempt(attempts: int, outcome: Outcome, now: float, created_at: float, jitter: float) -> RetryAt | DeadLetter:
    """What follows a failed attempt.

    `attempts` counts those made, the one that ended in `outcome` included; `created_at` is when the delivery was made
    or last asked for by hand; `jitter` is a random number, 0 <= jitter <= 1. Must not be called for a success.

    A `Retry-After` (capped) is waited out in full, and the jitter comes on top of it, so that all the throttled do
    not return in the same instant.
    """
    if not outcome.again_can_help:
        return DeadLetter(f"trying again cannot help: {outcome.kind.value}")
    if attempts >= len(SCHEDULE_S):
        return DeadLetter(f"{attempts} attempts failed")
    if now - created_at >= GIVE_UP_AFTER_S:
        return DeadLetter(f"older than {GIVE_UP_AFTER_S / 3600:.0f} hours")
    delay_s = SCHEDULE_S[max(attempts, 0)] * min(max(jitter, 0.0), 1.0)
    if outcome.retry_after_s is not None:
        delay_s += min(max(outcome.retry_after_s, 0.0), RETRY_AFTER_CAP_S)
    return RetryAt(now + delay_s)
