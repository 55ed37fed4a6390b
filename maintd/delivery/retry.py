"""When to try a delivery again, as a value: never a loop, never a sleep.

The schedule is dense at its start, because an HA manager that restarts wants the event seconds later, and long at its
end, because an operator who comes to work in the morning wants last night's events. Each delay is drawn uniformly
between nothing and its full length ("full jitter"): a receiver that comes back is not met by everybody at once.

What is told too late can do harm: whoever reads of a stalled migration acts on it, an hour after it went on. So each
type of event has an age beyond which it is not sent at all.

Pure. The random number comes in as an argument, as the time does; the same arguments give the same decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from maintd.delivery.outcome import Outcome

SCHEDULE_S: Final = (0.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0, 18000.0, 36000.0)
"""SCHEDULE_S[n] is the longest wait before attempt n + 1: the first is at once, the ninth up to 10 hours later."""

RETRY_AFTER_CAP_S: Final = 3600.0
"""A receiver may ask for patience, but not for more than this: an absurd header must not bury an event."""

GIVE_UP_AFTER_S: Final = 86400.0
"""A delivery this old is not tried again once an attempt fails."""

HOUR_S: Final = 3600.0
EXPIRES_AFTER_S: Final = (
    # What is going on at this moment. An hour later it is over or has been said again, and the end of it is an event.
    ("maintd.migration.started.*", HOUR_S),
    ("maintd.migration.stalled.*", HOUR_S),
    ("maintd.migration.resumed.*", HOUR_S),
    ("maintd.drain.stalled.*", HOUR_S),
    ("maintd.drain.resumed.*", HOUR_S),
    ("maintd.server.moving.*", HOUR_S),
    ("maintd.server.move_stalled.*", HOUR_S),
    # What has changed and stays so: whoever comes to work in the morning wants last night's. After a day the log and
    # the present state tell more than a pile of old events.
    ("*", GIVE_UP_AFTER_S),
)
"""(glob over event types, how old a delivery of such an event may be and still be sent); the first that matches counts.

Without an end the events queued behind a dead receiver's first one would be sent days late, one by one, each after its
own whole schedule.
"""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at this moment (epoch seconds)."""

    at: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Stop trying. The delivery is kept, listed and can be redelivered by hand; `reason` is for people."""

    reason: str


def expired(event_type: str, created_at: float, now: float) -> DeadLetter | None:
    """Why a delivery is too old to be sent, or None where it is not.

    `created_at` is when the delivery was made or last asked for by hand: what an operator has sent again is as new.
    """
    after_s = next(seconds for pattern, seconds in EXPIRES_AFTER_S if fnmatchcase(event_type, pattern))
    if now - created_at < after_s:
        return None
    return DeadLetter(f"older than {after_s / HOUR_S:.0f} h, when an event of this type is of no use any more")


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
