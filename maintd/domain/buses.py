"""What a bus lets us know, and when it does not: broken connections, our own absence, and a bus that has gone deaf.

A bus *speaks for* the hosts whose compute was last heard on it. While it may have told something that did not reach us,
nothing is proven of those hosts; the others go on, unless they are down: then Nova's API speaks in the compute's place
(a delete on a dead host, an evacuation), and on which bus it does is not known.

A bus is *deaf* when it is connected, says nothing, and the API shows what it should have told: new servers, servers on
other hosts, moves under way. Wrong exchanges, unversioned notifications and computes that were moved to another broker
all look like this. What Nova never tells (facts 3) is no evidence. One notification is enough to be heard again.

What was missed is not made up for here: reading the API is `ingest/polls.py`'s affair, and `BaselineCompleted` says
that it was done.
"""

from __future__ import annotations

from collections.abc import Iterable

from maintd.domain.copying import replace
from maintd.domain.draft import Draft
from maintd.domain.model import Bus, Host, Kind, Migration, Phase, Server
from maintd.domain.observations import BusSeen, ComputeHeard, Watching

DEAF_AFTER_S = 300.0
"""A bus that has said something within so long is not deaf, whatever the API shows."""

NEVER_HEARD_S = 60.0
"""The same for one that has been listened to for so long, and has not said a word since maintd began."""

LATE_S = 30.0
"""How long a notification may take after the API has shown what it tells."""

_TOLD = frozenset({Phase.RUNNING, Phase.FINISHING, Phase.AWAITING_CONFIRMATION})
"""Phases in which a compute has already told of a move."""


def unheard(host: Host, buses: Iterable[Bus]) -> tuple[str, ...]:
    """The buses without which what is held of a host may be stale, by name; empty where all that matters is heard."""
    known = {bus.name: bus for bus in buses}
    sick = tuple(sorted(name for name, bus in known.items() if not bus.heard))
    if not sick or host.down or host.heard_on not in known:
        return sick
    return tuple(name for name in sick if name == host.heard_on)


def silence(buses: Iterable[Bus], names: Iterable[str]) -> str:
    """What is the matter with these buses, for people."""
    known = {bus.name: bus for bus in buses}
    said = []
    for name in names:
        bus = known.get(name)
        if bus is not None and bus.deaf_from is not None:
            said.append(f"bus {name} is connected but says nothing of what the API shows (see maintd doctor)")
        elif bus is not None and not bus.connected:
            said.append(f"bus {name} is not connected")
        else:
            said.append(f"notifications of bus {name} may have been missed and are being made up for")
    return "; ".join(said)


def fold_bus(d: Draft, o: BusSeen) -> None:
    known = d.bus(o.bus) or Bus(o.bus)
    first = d.bus(o.bus) is None
    if o.state == "connected":
        new = replace(known, connected=True, reconnected_at=d.now, listen_by=None)
        if known.blind_from is not None and not d.policy.has_cloud:
            new = replace(new, blind_from=None)  # nothing can be read again; from here on we see
    elif o.state == "lost":
        blind = known.blind_from if known.blind_from is not None else d.now
        new = replace(known, connected=False, blind_from=None if first else blind, listen_by=None)
    elif o.state == "blind":
        blind_from = o.blind_from if o.blind_from is not None else d.now
        held = known.blind_from
        new = replace(known, blind_from=blind_from if held is None else min(held, blind_from))
    elif o.state == "heard":
        new = replace(known, deaf_from=None, listen_by=None, reconnected_at=d.now)
    elif o.state == "healed":
        new = replace(known, blind_from=None, deaf_from=None)
    else:
        return
    if new == known and not first:
        return
    _put(d, new, known)


def _put(d: Draft, new: Bus, known: Bus) -> None:
    d.put(new)
    if new.heard != known.heard or new.blind_from != known.blind_from:
        d.named(*_spoken_for(d, new.name))


def _spoken_for(d: Draft, bus: str) -> list[str]:
    """The closed hosts of which something may have been missed when this bus was not heard."""
    names = {b.name for b in d.buses()}
    out = []
    for name in sorted(d.fleet.closed_hosts()):
        host = d.host(name)
        if host is not None and (host.down or host.heard_on == bus or host.heard_on not in names):
            out.append(name)
    return out


def heal(d: Draft, read_from: float) -> None:
    """The API was read from `read_from` on: every bus that was connected by then has been made up for."""
    for bus in d.buses():
        if bus.blind_from is not None and bus.deaf_from is None and bus.connected:
            if (bus.reconnected_at or 0.0) <= read_from:
                _put(d, replace(bus, blind_from=None), bus)


def fold_watching(d: Draft, o: Watching) -> None:
    if d.fleet.knowledge is not None:
        d.put(replace(d.fleet.knowledge, alive_at=o.seen_at))
    for bus in d.buses():
        heard_at = d.fleet.heard_at.get(bus.name)
        if heard_at is not None and heard_at != bus.last_message_at:
            d.put(replace(bus, last_message_at=heard_at))


def fold_compute_heard(d: Draft, o: ComputeHeard) -> None:
    host = d.host(o.host)
    if host is not None and host.heard_on != o.bus:
        d.put(replace(host, heard_on=o.bus))


def fold_listen_due(d: Draft, name: str) -> None:
    """The time is up by which a bus must have told what the API showed."""
    bus = d.bus(name)
    if bus is None or bus.listen_by is None or bus.listen_by > d.now:
        return
    if not bus.heard or _last_heard(d, bus) > bus.listen_by - LATE_S - _patience_s(d, bus):
        d.put(replace(bus, listen_by=None))
        return
    since = _last_heard(d, bus)
    _put(d, replace(bus, listen_by=None, deaf_from=since, blind_from=since), bus)


def _last_heard(d: Draft, bus: Bus) -> float:
    return max(d.fleet.heard_at.get(bus.name, 0.0), bus.reconnected_at or 0.0)


def _patience_s(d: Draft, bus: Bus) -> float:
    return DEAF_AFTER_S if bus.name in d.fleet.heard_at else NEVER_HEARD_S


def notice_silence(d: Draft) -> None:
    """The API has shown something new: did the bus that should have told of it say anything lately?"""
    if d.because.origin != "api" or d.fleet.knowledge is None or d.fleet.knowledge.baselined_at is None:
        return
    listened = [b for b in d.buses() if b.heard and b.listen_by is None]
    quiet = [b for b in listened if d.now - _last_heard(d, b) > _patience_s(d, b)]
    if not quiet:
        return
    hosts = {host for (_, key), value in d.changed.items() for host in _should_be_told(d, key, value)}
    several = len(list(d.buses())) > 1
    for bus in quiet:
        if any(not several or (held := d.host(host)) is not None and held.heard_on == bus.name for host in hosts):
            d.put(replace(bus, listen_by=d.now + LATE_S))


def _should_be_told(d: Draft, key: str, value: object) -> tuple[str, ...]:
    """The host whose compute must have told of a change that the API has shown; none for what Nova tells nobody."""
    if isinstance(value, Server) and value.host and value.vm_state in ("active", "stopped", "resized"):
        before = d.fleet.server(key)
        evacuated = any(m.kind is Kind.EVACUATION for m in d.migrations_of(key))
        if not evacuated and (before is None or (before.host is not None and before.host != value.host)):
            return (value.host,)
    elif isinstance(value, Migration) and value.kind is not Kind.EVACUATION and value.source:
        if d.fleet.migration(key) is None and value.phase in _TOLD:
            return (value.source,)
    return ()
