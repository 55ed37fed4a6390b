"""How a migration moves from phase to phase: two tables, and the three rules for reading them.

*Theory.* Nova never says on the bus that a migration's row changed; computes say what they are doing. So there is a
table for what they say (`STEPS`) and one for what the API's row says (`STATUSES`); both lead to the same phases. The
rules:

1. A migration never goes back. Each phase has a rank, and nothing seen leads to a lower one. This alone makes repeated
   and late messages harmless.
2. The bus gives a *verdict*, the API gives *the end*. `post.end` is sent before the row turns completed, `rollback.end`
   before it turns failed (facts 2.1), so a verdict waits for the API's word, for as long as the policy says.
3. A step begins a migration only if the table says that it may (`begins`), and only if it is not the echo of one that
   has ended. A final step about a migration that nobody knows is nothing.

What is not in the tables changes no phase. Which host a step was about is decided by the normalisers (facts 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from maintd.domain.model import Kind, Phase
from maintd.domain.observations import Step

RANK: dict[Phase, int] = {
    Phase.ASKED: 0,
    Phase.QUEUED: 1,
    Phase.PREPARING: 2,
    Phase.RUNNING: 3,
    Phase.FINISHING: 4,
    Phase.ROLLING_BACK: 4,
    Phase.AWAITING_CONFIRMATION: 5,
    Phase.CONFIRMING: 6,
    Phase.REVERTING: 6,
    Phase.COMPLETED: 9,
    Phase.FAILED: 9,
    Phase.CANCELLED: 9,
}


@dataclass(frozen=True, slots=True)
class Transition:
    """What a step means. `phase` it leads to (None: none), `verdict` on the end (None: none), whether it `begins` a
    migration or may stand for one whose beginning was missed (`joins`), and whether it says that somebody `aborts`.

    `soft` verdicts hold only if nothing else is heard for a while: Nova goes on after some of them.
    """

    kind: Kind
    phase: Phase | None = None
    verdict: Phase | None = None
    begins: bool = False
    joins: bool = False
    aborts: bool = False
    soft: bool = False


L, C, E = Kind.LIVE, Kind.COLD, Kind.EVACUATION

STEPS: dict[Step, Transition] = {
    Step.LIVE_PRE_START: Transition(L, Phase.PREPARING, begins=True),
    Step.LIVE_PRE_END: Transition(L, Phase.RUNNING, joins=True),
    Step.LIVE_POST_START: Transition(L, Phase.FINISHING, joins=True),
    Step.LIVE_POST_DEST_START: Transition(L, Phase.FINISHING, joins=True),
    Step.LIVE_POST_DEST_END: Transition(L, Phase.FINISHING),
    Step.LIVE_POST_END: Transition(L, Phase.FINISHING, Phase.COMPLETED),
    Step.LIVE_ROLLBACK_START: Transition(L, Phase.ROLLING_BACK, joins=True),
    Step.LIVE_ROLLBACK_END: Transition(L, Phase.ROLLING_BACK, Phase.FAILED),
    Step.LIVE_ROLLBACK_DEST_START: Transition(L),
    Step.LIVE_ROLLBACK_DEST_END: Transition(L),
    Step.LIVE_ABORT_START: Transition(L, joins=True, aborts=True),
    Step.LIVE_ABORT_END: Transition(L, verdict=Phase.CANCELLED, aborts=True),  # only of a queued one; see `verdict_of`
    Step.LIVE_FORCE_START: Transition(L, joins=True),
    Step.LIVE_FORCE_END: Transition(L),
    Step.RESIZE_PREP_START: Transition(C, Phase.PREPARING, begins=True),
    Step.RESIZE_PREP_END: Transition(C),  # also sent after a failure
    Step.RESIZE_START: Transition(C, Phase.RUNNING, joins=True),
    Step.RESIZE_END: Transition(C, Phase.FINISHING, joins=True),
    Step.RESIZE_ERROR: Transition(C, verdict=Phase.FAILED, soft=True),  # sent when rescheduling, too
    Step.RESIZE_FINISH_START: Transition(C, Phase.FINISHING),
    Step.RESIZE_FINISH_END: Transition(C, Phase.AWAITING_CONFIRMATION),
    Step.CONFIRM_START: Transition(C, Phase.CONFIRMING, joins=True),
    Step.CONFIRM_END: Transition(C, Phase.CONFIRMING, Phase.COMPLETED),
    Step.REVERT_START: Transition(C, Phase.REVERTING, joins=True),
    Step.REVERT_END: Transition(C, Phase.REVERTING, Phase.CANCELLED),
    Step.EVACUATE: Transition(E, Phase.ASKED, begins=True),
    Step.REBUILD_SCHEDULED: Transition(E, Phase.PREPARING, joins=True),
    Step.REBUILD_START: Transition(E, Phase.RUNNING, joins=True),
    Step.REBUILD_END: Transition(E, Phase.FINISHING, Phase.COMPLETED),
    Step.REBUILD_ERROR: Transition(E, verdict=Phase.FAILED),
}

HOST_STALE_STEPS = frozenset(
    {
        Step.LIVE_POST_START,
        Step.LIVE_POST_DEST_START,
        Step.LIVE_POST_END,
        Step.REBUILD_END,
        Step.RESIZE_END,
        Step.RESIZE_FINISH_START,
        Step.CONFIRM_START,
        Step.CONFIRM_END,
        Step.REVERT_START,
    }
)
"""Steps whose payload may name a host that the server has left, or has not reached (facts 2.1)."""

LIVE_STATUSES = {
    "accepted": Phase.ASKED,
    "queued": Phase.QUEUED,
    "preparing": Phase.PREPARING,
    "running": Phase.RUNNING,
    "running (post-copy)": Phase.RUNNING,
    "post-migrating": Phase.FINISHING,
    "completed": Phase.COMPLETED,
    "cancelled": Phase.CANCELLED,
    "failed": Phase.FAILED,
    "error": Phase.FAILED,
}
COLD_STATUSES = {
    "accepted": Phase.ASKED,
    "queued": Phase.QUEUED,
    "pre-migrating": Phase.PREPARING,
    "migrating": Phase.RUNNING,
    "post-migrating": Phase.FINISHING,
    "finished": Phase.AWAITING_CONFIRMATION,
    "confirming": Phase.CONFIRMING,
    "confirmed": Phase.COMPLETED,
    "reverting": Phase.REVERTING,
    "reverted": Phase.CANCELLED,
    "error": Phase.FAILED,
    "failed": Phase.FAILED,
}
EVACUATION_STATUSES = {
    "accepted": Phase.ASKED,
    "pre-migrating": Phase.RUNNING,
    "done": Phase.COMPLETED,  # the server is rebuilt elsewhere; what the source keeps is residue (facts 2.6)
    "completed": Phase.COMPLETED,
    "error": Phase.FAILED,
    "failed": Phase.FAILED,
}
STATUSES: dict[Kind, dict[str, Phase]] = {
    Kind.LIVE: LIVE_STATUSES,
    Kind.COLD: COLD_STATUSES,
    Kind.RESIZE: COLD_STATUSES,
    Kind.EVACUATION: EVACUATION_STATUSES,
}
"""Nova's status of a row, by kind (facts 4.2). One that is not listed leaves the phase as it is, and keeps a host
full.
"""

HOLDING_STATUSES = frozenset(
    {
        "accepted",
        "queued",
        "preparing",
        "running",
        "running (post-copy)",
        "pre-migrating",
        "migrating",
        "post-migrating",
        "finished",
        "confirming",
        "reverting",
        "done",
    }
)
"""Statuses in which a row still holds its source, its destination, or both."""

RELEASED_STATUSES = frozenset({"completed", "cancelled", "failed", "error", "confirmed", "reverted"})
"""Statuses in which a row holds nothing. Anything that is in neither set is treated as holding."""


def same_family(one: Kind, other: Kind) -> bool:
    """Whether two kinds can be the same move: the bus cannot tell a resize from a cold migration in every step."""
    cold = (Kind.COLD, Kind.RESIZE)
    return one == other or (one in cold and other in cold)


def advance(phase: Phase, to: Phase | None) -> Phase:
    """The phase after something was seen that leads to `to`: never a lower rank, and a final phase stays."""
    if to is None or phase.final or RANK[to] <= RANK[phase]:
        return phase
    return to


def verdict_of(transition: Transition, step: Step, phase: Phase, aborted: bool) -> Phase | None:
    """What a step says of the end, given where the migration stood and whether somebody had asked to abort it.

    `abort.end` ends only what was still queued; of a running one it means "asked to", and rollback follows (facts 2.3).
    A rollback after an abort is a cancellation.
    """
    if step is Step.LIVE_ABORT_END:
        return Phase.CANCELLED if phase in (Phase.ASKED, Phase.QUEUED) else None
    if transition.verdict is Phase.FAILED and step is Step.LIVE_ROLLBACK_END and aborted:
        return Phase.CANCELLED
    return transition.verdict
