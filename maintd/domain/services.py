"""Compute services and their hosts: first sight, opening and closing, heartbeats, a new service under an old name."""

from __future__ import annotations

from maintd.domain import events
from maintd.domain.copying import replace
from maintd.domain.draft import Draft
from maintd.domain.drains import close_drain
from maintd.domain.events import Instant
from maintd.domain.model import (
    Host,
    Verification,
)
from maintd.domain.observations import (
    HostHinted,
    NodesSeen,
    ServiceSeen,
    ServicesListed,
)
from maintd.domain.residue import clear_residue, judge_departures


def fold_service(d: Draft, o: ServiceSeen) -> None:
    known = d.host(o.host)
    d.named(o.host) if o.because.origin == "notification" else None
    if o.change == "deleted":
        if known is not None and (o.service_uuid is None or known.service_uuid in (None, o.service_uuid)):
            _remove_host(d, known)
        return
    if known is not None and o.service_uuid and known.service_uuid and o.service_uuid != known.service_uuid:
        if o.asked_at is not None and known.seen_at >= o.asked_at:
            return
        if o.asked_at is None and o.emitted_at < (known.versioned_at or known.seen_at):
            return  # a late word of the service that was here before
        _remove_host(d, known)
        known = None
        d.removed.pop((Host, o.host), None)
        d.forgotten.pop((Verification, o.host), None)
        d.put(Verification(o.host))
    if o.cell_unknown:
        base = known or Host(o.host, seen_at=d.now, found=True, quiet=True)
        if not base.cell_unknown:
            d.put(replace(base, cell_unknown=True))
            d.named(o.host)
            d.touch(o.host)
        return
    if known is not None and (o.up is not None or o.forced_down):
        at = o.asked_at if o.asked_at is not None else o.seen_at
        lives = not o.forced_down and o.up is not False
        judge_departures(d, o.host, down_since=o.down_since, up=lives, asked_at=at)
        known = d.host(o.host) or known
    fresh = known is None
    if known is None:
        # Live news is never first sight: what had no news before was open.
        known = Host(o.host, service_uuid=o.service_uuid)
    elif o.asked_at is not None and known.seen_at >= o.asked_at:
        up = _heartbeat(known, o)
        if known.up != up:
            new = replace(known, up=up, down_since=_down_since(known, o, d.now))
            d.put(_to_be_said(d, _remembering(known, new, o, d.now)))
            d.touch(o.host)
        return
    elif o.asked_at is None and o.emitted_at < known.versioned_at:
        return
    new = replace(
        known,
        service_uuid=o.service_uuid or known.service_uuid,
        disabled=o.disabled,
        disabled_reason=o.disabled_reason,
        forced_down=o.forced_down,
        up=_heartbeat(known, o),
        down_since=_down_since(known, o, d.now) if o.up is not None else known.down_since,
        cell_unknown=False,
        seen_at=o.seen_at,
        versioned_at=o.emitted_at if o.asked_at is None else known.versioned_at,
    )
    if new.closed and not known.closed:
        new = replace(new, closed_at=d.now)
    if fresh and o.change is None:
        new = replace(new, found=new.closed, quiet=new.closed)
    new = _to_be_said(d, _remembering(known, new, o, d.now))
    same = replace(new, seen_at=known.seen_at, versioned_at=known.versioned_at) == known
    if same and not fresh:
        if o.asked_at is None:
            d.put(new)
        return
    d.put(new)
    d.touch(o.host)
    if d.policy.trust_reap and known.down and new.up is True and not new.down:
        # nova-compute destroys what was deleted meanwhile when it starts; the operator has said to believe that it did.
        for left in d.residue_on(o.host):
            if left.kind == "deleted_while_down":
                clear_residue(d, left, "[residue] trust_reap: nova-compute runs again")
    if new.closed != known.closed or new.cell_unknown != known.cell_unknown or fresh:
        d.named(o.host)


def _remembering(known: Host, new: Host, o: ServiceSeen, now: float) -> Host:
    """The host, with what must not be forgotten: that it was down when it was first asked after, and until when."""
    if known.up is None and o.up is not None and (o.up is False or o.forced_down):
        # What was evacuated from it or deleted before anybody asked is not known, whether it is closed yet or not.
        new = replace(new, history_unknown=True)
    if known.down and known.up is not None and not new.down:
        new = replace(new, last_down_from=known.down_since or known.closed_at, last_down_to=now)
    return new


def _heartbeat(known: Host, o: ServiceSeen) -> bool | None:
    """Whether the service's heartbeat is heard. Nova calls one that is forced down *down*, whatever its heartbeat."""
    if o.up is None:
        return known.up
    if o.forced_down and o.up is False:
        return False if known.up is None else known.up
    return o.up


FLAPPING_S = 60.0
"""How long a heartbeat must have changed to be believed where the last change was told within `FLAP_WINDOW_S`."""

FLAP_WINDOW_S = 600.0


def _to_be_said(d: Draft, host: Host) -> Host:
    """When a change of the heartbeat is to be told: once it has lasted, so that a restart is no loss.

    While a host is forced down, Nova does not say whether its heartbeat is heard, and nothing is told.
    """
    if host.said_up is None:
        return replace(host, said_up=host.up)  # first sight
    if host.up is None or host.forced_down or host.up == host.said_up:
        return host if host.say_up_at is None else replace(host, say_up_at=None)
    if host.say_up_at is not None:
        return host
    flaps = host.said_up_at is not None and d.now - host.said_up_at < FLAP_WINDOW_S
    return replace(host, say_up_at=d.now + (FLAPPING_S if flaps else d.policy.lost_after_s))


def fold_heartbeat_due(d: Draft, name: str) -> None:
    """A change of the heartbeat has lasted: it is told. Of many that are lost, all are told at once."""
    host = d.host(name)
    if host is None or host.say_up_at is None or host.say_up_at > d.now:
        return
    said = [host]
    if host.up is False:
        waiting = [h for h in d.fleet.hosts() if h.say_up_at is not None and h.up is False]
        alike = [h for h in waiting if h.planned == host.planned]
        if len(alike) >= d.policy.many_lost:
            said = sorted(alike, key=lambda h: h.name)
    for one in said:
        d.put(replace(one, said_up=one.up, said_up_at=d.now, say_up_at=None))


def _down_since(known: Host, o: ServiceSeen, now: float) -> float | None:
    if _heartbeat(known, o) is not False:
        return None
    return known.down_since if known.up is False else (o.down_since or now)


def _remove_host(d: Draft, host: Host) -> None:
    """The compute service is gone: its drain is over, its residue is archived, nothing is proven of it any more."""
    since = Instant(d.now)
    close_drain(d, host, removed=True)
    d.before_events.append(events.ServiceDeleted(because=d.because, host=host.name, since=since))
    for r in d.residue_on(host.name):
        d.put(replace(r, cleared_at=d.now, cleared_by="the compute service was deleted"))
    d.changed.pop((Host, host.name), None)
    d.changed.pop((Verification, host.name), None)
    d.removed[(Host, host.name)] = host
    held = d.fleet.verification(host.name)
    if held is not None:
        d.forgotten[(Verification, host.name)] = held


def open_host(d: Draft, host: Host) -> None:
    before = d.fleet.host(host.name)
    if before is None or not before.closed:
        return
    close_drain(d, host, removed=False)
    host = d.host(host.name) or host
    d.put(
        replace(
            host,
            closed_at=None,
            found=False,
            quiet=False,
            emptied=False,
            emptied_at=None,
            drain_id=None,
            finding=None,
        )
    )
    held = d.fleet.verification(host.name)
    d.changed.pop((Verification, host.name), None)
    if held is not None:
        d.forgotten[(Verification, host.name)] = held


def fold_services_listed(d: Draft, o: ServicesListed) -> None:
    if not o.hosts:
        return
    for host in list(d.fleet.hosts()):
        if host.name not in o.hosts and host.seen_at < o.asked_at:
            _remove_host(d, host)


def fold_hint(d: Draft, o: HostHinted) -> None:
    d.named(o.host)


def fold_nodes(d: Draft, o: NodesSeen) -> None:
    known = d.host(o.host)
    if known is not None and known.nodes != o.nodes:
        d.put(replace(known, nodes=o.nodes))
