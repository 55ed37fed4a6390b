"""The life of a drain: when a closed host begins to be emptied, when that stands still, when it is over.

A closed host is not a drain; one begins when something leaves or is asked to, when the reason given says so, or when an
operator does.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from maintd.domain import emptiness
from maintd.domain.copying import replace
from maintd.domain.draft import MOVING_PHASES, Draft
from maintd.domain.model import (
    Drain,
    Host,
    Migration,
)
from maintd.domain.observations import (
    DrainRequested,
)


def fold_drain_requested(d: Draft, o: DrainRequested) -> None:
    if d.host(o.host) is not None:
        d.requested[o.host] = o.removal
        d.touch(o.host)


def remaining(d: Draft, host: Host) -> bool:
    """Whether anything is still in the way; where proofs are possible, only a proof says that nothing is."""
    if d.policy.has_cloud:
        return not host.emptied
    return bool(
        d.servers_on(host.name)
        or d.landing_on(host.name)
        or any(m.source == host.name for m in d.open_migrations_on(host.name))
        or (host.finding is not None and emptiness.occupying(host.finding.blockers))
    )


def judge_drain(d: Draft, host: Host, here: set[str], moves: list[Migration]) -> Host:
    name = host.name
    away = [m for m in moves if m.source == name and m.destination != name and m.phase in MOVING_PHASES]
    drain = d.drain(host.drain_id)
    if drain is None:
        named = _says(host, d.policy.reason_match) or _says(host, d.policy.removal_match)
        named = named and (not host.found or bool(here or moves))
        if not (away or name in d.departed or name in d.requested or named):
            return host
        baselined = d.fleet.knowledge is not None and d.fleet.knowledge.baselined_at is not None
        drain = Drain(
            drain_id=d.new_id(),
            host=name,
            started_at=d.now,
            reason=host.disabled_reason,
            forced_down=host.forced_down,
            found=host.found,
            requested=name in d.requested,
            servers_total=len(here) + (name in d.departed) if baselined else None,
            moved_at=d.now,
            removal=d.requested.get(name, False) or _says(host, d.policy.removal_match),
        )
        d.put(drain)
        # A host that was found empty has not been announced; with a drain it is, by a proof of its own.
        emptied = host.emptied and not host.quiet
        host = replace(host, drain_id=drain.drain_id, quiet=False, emptied=emptied)
        d.put(host)
        return host
    if not drain.removal and (d.requested.get(name) or _says(host, d.policy.removal_match)):
        drain = replace(drain, removal=True)
        d.put(drain)
    moved_at = max([m.moved_at for m in moves if m.source == name], default=0.0)
    if name in d.departed:
        moved_at = d.now
    for (table, _), value in d.changed.items():
        if table is Migration and value.source == name and value.moved_at == d.now:  # type: ignore[union-attr]
            moved_at = d.now
    if moved_at > drain.moved_at:
        d.put(replace(drain, moved_at=moved_at, stalled_at=None))
    return host


def _says(host: Host, patterns: tuple[str, ...]) -> bool:
    """Whether the reason given for disabling the host is one of these."""
    reason = host.disabled_reason
    return reason is not None and any(fnmatchcase(reason.lower(), pattern.lower()) for pattern in patterns)


def close_drain(d: Draft, host: Host, *, removed: bool) -> None:
    drain = d.drain(host.drain_id)
    before = d.fleet.host(host.name)
    if drain is None or drain.ended_at is not None:
        return
    empty = before is not None and before.emptied
    ended = replace(drain, ended_at=d.now, outcome="ended" if empty else "cancelled", removed=removed)
    d.put(ended)
