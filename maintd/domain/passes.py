"""Verification passes: from their first question to the proof.

This is the only way to `host.emptied`: the end of the second of two whole passes that found nothing, with nothing
heard of the host in between. What a pass shows is judged in `emptiness.py`; when the next one is due is decided here.
"""

from __future__ import annotations

from maintd.domain import emptiness
from maintd.domain.copying import replace
from maintd.domain.draft import CLOCK_MARGIN_S, MOVING_PHASES, Draft
from maintd.domain.model import (
    Blocker,
    Departure,
    Finding,
    Host,
    Phase,
    Verification,
)
from maintd.domain.moves import end
from maintd.domain.observations import (
    PassBegun,
    PassRead,
    Read,
)
from maintd.domain.residue import accepted, leave_vanished

VERIFY_BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""How long to wait before the next pass after one that did not find the host empty."""


DISTURBED_S = 1.0
"""Longest wait after a pass that was disturbed, or that found nothing but what is about to go."""


YOUNG_S = 30.0
"""How long an allocation that nothing explains counts as about to go."""


def fold_pass_begun(d: Draft, o: PassBegun) -> None:
    v = d.verification(o.host)
    d.put(
        replace(
            v,
            pass_number=o.pass_number,
            begun_at=o.seen_at,
            begun_generation=v.generation,
            reads=(),
            verify_at=None,
            failure=None,
        )
    )


def fold_pass_read(d: Draft, o: PassRead) -> None:
    host = d.host(o.host)
    v = d.verification(o.host)
    began_at = v.begun_at
    if host is None or began_at is None or v.pass_number != o.pass_number:
        return
    v = replace(v, reads=(*v.reads, o))
    if o.error is None and not (o.read is Read.SERVICE and o.complete):
        d.put(v)
        return
    leave_vanished(d, host, v)
    v = replace(d.verification(host.name), reads=v.reads)
    over = replace(v, reads=(), begun_at=None)
    if v.begun_generation != v.generation or v.named_at > began_at:
        # Disturbed is not refused: what was heard has to be looked at soon.
        wait_s = min(VERIFY_BACKOFF_S[min(v.tries, len(VERIFY_BACKOFF_S) - 1)], DISTURBED_S)
        d.put(replace(over, first=None, verify_at=d.now + wait_s, tries=v.tries + 1))
        return
    drain = d.drain(host.drain_id)
    begun = [at for at in (host.closed_at, drain.started_at if drain else None) if at is not None]
    finding, leftovers = emptiness.judge_pass(
        v.reads,
        host,
        at=d.now,
        pass_number=o.pass_number,
        residue=tuple(d.residue_on(host.name)),
        accepted=frozenset(accepted(d, host.name, v.reads)),
        buses=d.buses(),
        since=min(begun) - CLOCK_MARGIN_S if begun else None,  # rows are dated in whole seconds, by other clocks
        leftovers=dict(v.leftovers),
        policy=d.policy,
        held=d.server,
        undecided=lambda server_id: _is_undecided(d, server_id),
    )
    over = replace(over, leftovers=tuple(sorted(leftovers.items())))
    unexplained = [gone for gone in host.departures if not gone.lived]
    if unexplained:
        finding = replace(finding, blockers=(*finding.blockers, _unexplained(unexplained[0])))
    if finding.blockers:
        held = host.finding
        there = emptiness.occupying(finding.blockers)
        if held is None or (held.blockers, held.warnings) != (finding.blockers, finding.warnings):
            if not host.emptied or there:  # one that is proven keeps its proof until something is there
                host = replace(host, finding=finding, quiet=host.quiet and not there)
                d.put(host)
        wait_s = VERIFY_BACKOFF_S[min(v.tries, len(VERIFY_BACKOFF_S) - 1)]
        if all(b.kind == "allocation" and d.now - (b.since or d.now) < YOUNG_S for b in finding.blockers):
            wait_s = min(wait_s, DISTURBED_S)  # nothing will announce that Placement lets go
        d.put(replace(over, first=None, verify_at=d.now + wait_s, tries=v.tries + 1))
        d.touch(host.name)
        if host.emptied and there:
            d.put(replace(host, finding=finding, emptied=False, quiet=False))
        return
    _settle_ghosts(d, host, v)
    if host.emptied:
        if host.finding is None or host.finding.blockers:
            d.put(replace(host, finding=finding))
        d.put(replace(over, first=None, tries=0, verify_at=None))
        return
    if v.first is None or v.first_generation != v.generation:
        # Settled means: from the first pass's look at Placement, where a departure ends, to the next pass's beginning.
        looked_at = max(r.seen_at for r in v.reads if isinstance(r, PassRead) and r.read is Read.ALLOCATIONS)
        d.put(
            replace(
                over,
                first=finding,
                first_generation=v.generation,
                first_looked_at=looked_at,
                tries=0,
                verify_at=looked_at + d.policy.settle_s,
            )
        )
        d.put(replace(host, finding=Finding(d.now, (_settling(d, finding),), finding.warnings, finding.proof)))
        return
    if began_at - v.first_looked_at < d.policy.settle_s:
        d.put(replace(over, verify_at=v.first_looked_at + d.policy.settle_s))
        return
    proof = Finding(finding.at, (), finding.warnings, v.first.proof + finding.proof)
    d.put(replace(over, first=None, tries=0, verify_at=None))
    d.put(replace(host, finding=proof, emptied=True, emptied_at=d.now))
    if drain is not None and drain.stalled_at is not None:
        d.put(replace(drain, stalled_at=None, moved_at=d.now))
    d.emptied[host.name] = proof
    d.touch(host.name)


def _is_undecided(d: Draft, server_id: str) -> bool:
    """Whether the server is being moved, and no destination has been named: its row has none until a compute begins."""
    open_ = d.open_migration_of(server_id)
    return open_ is not None and open_.destination is None


def _unexplained(gone: Departure) -> Blocker:
    """Somebody was found gone of whom nobody said how: until its compute is known to have lived, nothing is proven."""
    detail = (
        "a server was found gone and nobody said how; whether nova-compute lived by then shows at its next heartbeat"
    )
    return Blocker("verifying", gone.server_id, since=gone.at, detail=detail)


def _settling(d: Draft, finding: Finding) -> Blocker:
    return Blocker(
        "verifying",
        since=finding.at,
        detail=f"a first pass found it empty; a second follows after {d.policy.settle_s:g} s",
    )


def _settle_ghosts(d: Draft, host: Host, v: Verification) -> None:
    """A whole pass found nothing here: what we still hold here, unseen since it began, left without a word."""
    begun_at = v.begun_at or d.now
    for m in d.open_migrations_on(host.name):
        # What has arrived elsewhere, or here, and waits to be confirmed is its source's affair.
        if m.moved_at < begun_at and (m.source == host.name or m.phase in MOVING_PHASES):
            end(d, m, m.verdict or Phase.FAILED, None)
    for server_id in sorted(d.servers_on(host.name) | d.landing_on(host.name)):
        s = d.server(server_id)
        if s is not None and s.seen_at < begun_at:
            d.put(replace(s, host=None if s.host == host.name else s.host, landing=None, seen_at=d.now))
            d.departed[host.name] = None
            d.touch(host.name)
