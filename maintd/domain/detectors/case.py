"""What a detector is given, and what it may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maintd.domain.model import Curve, Host, Migration, Policy, Server, Stall


@dataclass(frozen=True, slots=True)
class Case:
    """One open migration, and all that a verdict on it may rest on.

    `queue_moved_at`: when a live migration of the same source last moved, if any did. `ahead`: an older one that waits
    in the same queue, `at_head` the one at work there that moved last, and `head` one that is at work there and is
    itself stalled; all by key. `source` and `destination` are the hosts as known, `standing` the stalls of this
    migration that stand, by reason. `heard`: what the bus says of the source reaches us, and has done so since
    `heard_from`.
    """

    migration: Migration
    policy: Policy
    now: float
    curve: Curve | None = None
    server: Server | None = None
    source: Host | None = None
    destination: Host | None = None
    queue_moved_at: float | None = None
    ahead: str | None = None
    head: str | None = None
    at_head: str | None = None
    standing: Mapping[str, Stall] = field(default_factory=dict)
    heard: bool = True
    heard_from: float = 0.0

    def held(self, reason: str) -> float:
        """For how many seconds a reason must have held."""
        return self.policy.stall_after_s[reason]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A reason holds. `evidence` is what that rests on, in words of the field and with units last."""

    reason: str
    since: float
    evidence: dict[str, object] = field(default_factory=dict)
    blocked_by: str | None = None


@dataclass(frozen=True, slots=True)
class Later:
    """It does not hold yet, and may by mere waiting: look again at this moment."""

    at: float


def when_held(reason: str, since: float, case: Case, **evidence: object) -> Judgement | Later:
    """The reason once it has held for its time, else when to look again."""
    due = since + case.held(reason)
    return Judgement(reason, since, evidence) if case.now >= due else Later(due)
