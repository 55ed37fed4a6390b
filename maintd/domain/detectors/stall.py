"""Is this migration standing still? The simplest honest form: nothing at all changed for a time.

- `frozen`: a running live migration whose counters are being looked at, and do not move. Only looks count: while nobody
  can look (API out, no cloud configured), nothing is claimed. Nova writes the counters every 5 s (facts 5.1).
- `not_started`: asked for, and nobody at work.
- `queue_blocked`: queued, and no live migration of the same source moves. A queue that moves is not a stall.
- `slow_step`: any other phase that does not change. Waiting for a confirmation is no stall at all.

What this cannot see: a migration that copies busily and never ends. It reports, and never acts.
"""

from __future__ import annotations

from dataclasses import dataclass

from maintd.domain.model import Kind, Migration, Phase, Policy

ADVICE = {
    "frozen": "look at nova-compute and libvirt on the source and the network between the hosts; the migration can be "
    "aborted with: openstack server migration abort {server} {id}",
    "not_started": "look at nova-conductor and nova-scheduler for errors about this server",
    "queue_blocked": "the source works its queue one by one: look at the migration at its head",
    "slow_step": "look at nova-compute on the source and the destination for what this step waits for",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """`reason` None: not stalled as far as can be seen. `look_at`: when to judge again if nothing is seen by then."""

    reason: str | None
    since: float | None
    look_at: float | None


def judge(migration: Migration, queue_moved_at: float | None, policy: Policy, now: float) -> Judgement:
    """Judge one open migration. `queue_moved_at`: when a live migration of the same source last moved, if any did."""
    phase, moved_at = migration.phase, migration.moved_at
    if not migration.open or phase is Phase.AWAITING_CONFIRMATION:
        return Judgement(None, None, None)
    if phase is Phase.RUNNING and migration.kind is Kind.LIVE:
        looked = migration.sampled_at
        if migration.progress is None or looked is None or looked - moved_at < policy.stall_after_s["frozen"]:
            return Judgement(None, None, None)
        return Judgement("frozen", moved_at, None)
    if phase in (Phase.ASKED, Phase.QUEUED) and migration.kind is Kind.LIVE:
        reason = "queue_blocked" if phase is Phase.QUEUED else "not_started"
        if queue_moved_at is not None:
            moved_at = max(moved_at, queue_moved_at)
    elif phase is Phase.ASKED:
        reason = "not_started"
    else:
        reason = "slow_step"
    due = moved_at + policy.stall_after_s[reason]
    return Judgement(reason, moved_at, None) if now >= due else Judgement(None, None, due)
