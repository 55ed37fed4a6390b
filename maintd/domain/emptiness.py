"""Is a host empty, and if not, why not? Judgements over what one verification pass read, and over what is known.

A pass is a fixed sequence of reads (facts 6.3): the migrations of the host, its servers (asked of the hypervisor call
and of the server list, which see different ones), its allocations in Placement, the migrations again, the service. An
arrival shows in Placement first and a departure leaves it last, so this order can only delay a true verdict, never
make a false one. Whatever is missing, failed, unknown or not understood is a blocker: there is no way to "empty" but
through the end of `judge_pass` with no blocker left.

This module does not decide when to verify, how often, or what to publish; `reducer.py` does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from maintd.domain.migrations import HOLDING_STATUSES, RELEASED_STATUSES
from maintd.domain.model import (
    Blocker,
    Bus,
    Finding,
    Host,
    Kind,
    Migration,
    Note,
    Phase,
    Policy,
    ProofRead,
    Residue,
    Server,
)
from maintd.domain.observations import MigrationSeen, PassRead, Read, ServerSeen, ServiceSeen

DISABLED_TRAIT = "COMPUTE_STATUS_DISABLED"

BLOCKER_KINDS: dict[str, str] = {
    "not_closed": "the compute service is enabled, or the scheduler has not been told that it is disabled",
    "not_attempted": "a server is here that nobody has asked to move",
    "moving": "a server is on its way out, or being confirmed or reverted",
    "stalled": "a server is on its way out and stands still",
    "last_attempt_failed": "the last attempt to move this server failed",
    "cannot_live_migrate": "a server is here that cannot be moved live (stopped, or in a state that Nova refuses)",
    "unconfirmed_resize": "a resize or cold migration waits to be confirmed; the disks are still here",
    "soft_deleted": "a soft-deleted server still has its disks here",
    "hidden_server": "the hypervisor call lists a server that the server list does not (a resize between cells)",
    "incoming": "a server is on its way to this host",
    "allocation": "Placement still holds resources here for a server or migration that has just left",
    "residue": "a server may have left its disks, or still run here, though Nova lists it elsewhere or not at all",
    "history_unknown": "the host was down when it was first seen; what was evacuated or deleted before is not known",
    "cell_unknown": "the host's cell does not answer",
    "ambiguous_service": "there is not exactly one nova-compute service of this name",
    "several_nodes": "the service has more than one compute node, which cannot be judged",
    "unverified": "the API has not been read to the end; the detail says why",
    "verifying": "nothing is in the way that is known; the proof is under way",
    "blind": "notifications may have been missed and are being made up for",
    "no_cloud": "no [cloud] is configured, so nothing can be proven",
}
"""Every kind of blocker there is, with what it means: a closed list."""

_STANDING = frozenset({"unverified", "verifying", "blind", "allocation", "no_cloud", "cell_unknown", "not_closed"})
"""Blockers that do not say that something is on the host."""


def occupying(blockers: Iterable[Blocker]) -> tuple[Blocker, ...]:
    """Those of the blockers that say that something is here or coming."""
    return tuple(b for b in blockers if b.kind not in _STANDING)


class _Slice(Protocol):
    @property
    def servers(self) -> tuple[Server, ...]: ...
    @property
    def migrations(self) -> tuple[Migration, ...]: ...
    @property
    def residue(self) -> tuple[Residue, ...]: ...


def server_blocker(
    host: str,
    server_id: str,
    vm_state: str | None,
    task_state: str | None,
    *,
    migration: Migration | None = None,
    fault: str | None = None,
    since: float | None = None,
) -> Blocker:
    """Why this server keeps the host from being empty, and the command that would get it away."""
    key = migration.key if migration else None
    if migration is not None and migration.destination == host and migration.source != host:
        if migration.phase is not Phase.AWAITING_CONFIRMATION:
            return Blocker("incoming", server_id, key, migration.begun_at, f"{migration.kind}: {migration.phase}")
    if migration is not None and migration.source == host:
        return migration_blocker(migration)
    if vm_state in ("soft-delete", "soft-deleted", "soft_deleted"):
        return Blocker(
            "soft_deleted",
            server_id,
            since=since,
            detail="its disks stay until Nova reclaims it",
            remedy=f"openstack server delete --force {server_id}",
        )
    if vm_state == "building":
        return Blocker("incoming", server_id, since=since, detail="it is being built here")
    if fault:
        return Blocker("last_attempt_failed", server_id, since=since, detail=fault, remedy=_move(server_id, vm_state))
    if vm_state not in (None, "active", "paused"):
        return Blocker(
            "cannot_live_migrate",
            server_id,
            since=since,
            detail=f"it is {vm_state}, and Nova live-migrates only active and paused servers",
            remedy=_move(server_id, vm_state),
        )
    detail = f"task {task_state}" if task_state else None
    return Blocker("not_attempted", server_id, since=since, detail=detail, remedy=_move(server_id, vm_state))


def _move(server_id: str, vm_state: str | None) -> str:
    if vm_state in (None, "active", "paused"):
        return f"openstack server migrate --live-migration {server_id}"
    if vm_state == "error":
        return f"openstack server show {server_id}"
    return f"openstack server migrate {server_id} && openstack server migration confirm {server_id}"


def migration_blocker(migration: Migration) -> Blocker:
    """Why a migration away from a host still holds it."""
    if migration.phase is Phase.AWAITING_CONFIRMATION:
        return Blocker(
            "unconfirmed_resize",
            migration.server_id,
            migration.key,
            migration.moved_at,
            "it runs elsewhere, its disks are still here, and a revert brings it back",
            f"openstack server migration confirm {migration.server_id}",
        )
    if migration.stalled:
        return Blocker(
            "stalled",
            migration.server_id,
            migration.key,
            migration.stalled_since,
            f"{migration.kind} is {migration.phase}, {migration.stalled}",
            f"openstack server migration show {migration.server_id} {migration.migration_id}"
            if migration.migration_id
            else None,
        )
    return Blocker(
        "moving", migration.server_id, migration.key, migration.begun_at, f"{migration.kind}: {migration.phase}"
    )


def known_blockers(slice_: _Slice, host: Host, *, accept_residue: bool = False) -> tuple[Blocker, ...]:
    """Blockers that follow from what is held of the host, whatever the API said last."""
    by_server: dict[str, Migration] = {m.server_id: m for m in slice_.migrations}
    out: list[Blocker] = []
    named: set[str] = set()
    for s in slice_.servers:
        if s.host == host.name:
            named.add(s.server_id)
            out.append(
                server_blocker(
                    host.name,
                    s.server_id,
                    s.vm_state,
                    s.task_state,
                    migration=by_server.get(s.server_id),
                    fault=s.fault,
                    since=s.seen_at or None,
                )
            )
        elif s.landing == host.name:
            named.add(s.server_id)
            out.append(Blocker("incoming", s.server_id, since=s.seen_at, detail="it is being built or unshelved here"))
    for m in slice_.migrations:
        if m.server_id in named:
            continue
        if m.source == host.name:
            out.append(migration_blocker(m))
        elif m.destination == host.name:
            out.append(Blocker("incoming", m.server_id, m.key, m.begun_at, f"{m.kind}: {m.phase}"))
    if not accept_residue:
        out.extend(residue_blocker(r) for r in slice_.residue)
    return tuple(out)


def residue_blocker(residue: Residue) -> Blocker:
    """Why residue keeps a host from being called empty."""
    if residue.kind == "evacuated":
        detail = "it was evacuated; its disks, and perhaps its guest, stay until nova-compute runs here again"
    elif residue.kind == "vanished":
        detail = "it is gone, and it is not known yet whether nova-compute ran then"
    else:
        detail = "it was deleted while the host could not be reached; its guest and disks may still be here"
    return Blocker(
        "residue",
        residue.server_id,
        since=residue.since,
        detail=residue.detail or detail,
        remedy=f"maintd residue clear {residue.host}   (after looking)",
    )


def blockers(slice_: _Slice, host: Host, policy: Policy, now: float) -> tuple[Blocker, ...]:
    """Why the host is not empty, for people. Empty only for a host that is proven so."""
    if host.emptied:
        return ()
    out: list[Blocker] = []
    if not host.closed:
        out.append(_not_closed(host, "the compute service is enabled"))
    if host.cell_unknown:
        out.append(Blocker("cell_unknown", detail=BLOCKER_KINDS["cell_unknown"]))
    if not policy.has_cloud:
        out.append(Blocker("no_cloud", detail=BLOCKER_KINDS["no_cloud"]))
    known = known_blockers(slice_, host, accept_residue=policy.accept_residue)
    out.extend(known)
    if host.history_unknown:
        out.append(_history_unknown(host))
    said = {(b.kind, b.server_id) for b in out}
    servers = {b.server_id for b in known if b.server_id}
    if host.finding is not None and host.closed:
        for b in host.finding.blockers:
            if (b.kind, b.server_id) not in said and (b.server_id is None or b.server_id not in servers):
                out.append(b)
    if not out:
        out.append(Blocker("verifying", detail=BLOCKER_KINDS["verifying"]))
    return tuple(out)


def _not_closed(host: Host, detail: str) -> Blocker:
    return Blocker(
        "not_closed", detail=detail, remedy=f"openstack compute service set --disable {host.name} nova-compute"
    )


def _history_unknown(host: Host) -> Blocker:
    return Blocker(
        "history_unknown",
        since=host.down_since,
        detail=BLOCKER_KINDS["history_unknown"],
        remedy=f"maintd residue clear {host.name}   (after looking)",
    )


# -- one verification pass --------------------------------------------------------------------------------------------


def spoilt(reads: tuple[object, ...]) -> str | None:
    """What is missing from a pass, in a sentence; None where it is whole and in order."""
    seen = [r for r in reads if isinstance(r, PassRead)]
    for r in seen:
        if r.error:
            return f"reading {r.read} failed: {r.error}"
    order = [r.read for r in seen if r.complete]

    def first(read: Read) -> int:
        return order.index(read) if read in order else -1

    def last(read: Read) -> int:
        return len(order) - 1 - order[::-1].index(read) if read in order else -1

    for read in (Read.MIGRATIONS, Read.HYPERVISOR, Read.SERVERS, Read.PROVIDERS, Read.SERVICE):
        if read not in order:
            return f"the pass has no complete {read}"
    if order.count(Read.MIGRATIONS) < 2:
        return "the migrations were not read a second time"
    if not first(Read.MIGRATIONS) < min(first(Read.HYPERVISOR), first(Read.SERVERS)):
        return "the migrations were not read before the servers"
    if not max(last(Read.HYPERVISOR), last(Read.SERVERS)) < first(Read.PROVIDERS):
        return "Placement was not read after the servers"
    if not last(Read.ALLOCATIONS) < last(Read.MIGRATIONS) or not last(Read.MIGRATIONS) < last(Read.SERVICE):
        return "the migrations were not read again after Placement, and the service last"
    roots = {r.target for r in seen if r.read is Read.HYPERVISOR and r.complete}
    trees = {r.target for r in seen if r.read is Read.PROVIDERS and r.complete}
    if roots != trees:
        return "not every compute node's provider tree was read"
    providers = {str(p) for r in seen if r.read is Read.PROVIDERS for p in r.found}
    read_allocations = {r.target for r in seen if r.read is Read.ALLOCATIONS and r.complete}
    if not providers:
        return "Placement knows no provider of this host"
    if providers - read_allocations:
        return "not every provider's allocations were read"
    return None


def judge_pass(
    reads: tuple[object, ...],
    host: Host,
    *,
    at: float,
    pass_number: int,
    residue: tuple[Residue, ...],
    accepted: frozenset[str] = frozenset(),
    buses: Iterable[Bus],
    since: float | None,
    leftovers: dict[str, float],
    policy: Policy,
) -> tuple[Finding, dict[str, float]]:
    """What a pass found. Returns the finding and the leftover consumers with when each was first seen.

    `accepted`: servers whose evacuation from here an operator has looked at. `since`: when the drain began; failed
    rows older than that are no warnings. `leftovers`: from earlier passes.
    """
    missing = spoilt(reads)
    if missing:
        return Finding(at, (Blocker("unverified", detail=missing),)), leftovers
    seen = [r for r in reads if isinstance(r, PassRead)]
    name = host.name
    out: list[Blocker] = []
    warnings: list[Note] = []

    services = [s for r in seen if r.read is Read.SERVICE for s in r.found if isinstance(s, ServiceSeen)]
    services = [s for s in services if s.host == name]
    service = services[0] if len(services) == 1 else None
    if service is None:
        out.append(Blocker("ambiguous_service", detail=f"os-services lists {len(services)} of this name"))
    elif service.cell_unknown:
        out.append(Blocker("cell_unknown", detail=BLOCKER_KINDS["cell_unknown"]))
    elif not (service.disabled or service.forced_down):
        out.append(_not_closed(host, "the compute service is enabled"))
    elif service.up and not service.forced_down:
        traits = {str(t) for r in seen if r.read is Read.TRAITS for t in r.found}
        if DISABLED_TRAIT not in traits:
            out.append(
                Blocker(
                    "not_closed",
                    detail=f"the service is disabled, but its provider lacks {DISABLED_TRAIT}: the scheduler may "
                    "still place servers here",
                    remedy="wait a minute for nova-compute to mend it, or disable the service again",
                )
            )

    roots = {r.target for r in seen if r.read is Read.HYPERVISOR}
    if len(roots) > 1:
        out.append(Blocker("several_nodes", detail=f"{len(roots)} compute nodes"))

    rows = {m.migration_uuid: m for r in seen if r.read is Read.MIGRATIONS for m in _rows(r)}
    first_rows, later = _split_rows(seen)
    # An evacuation that is done holds its source only; its destination may long have been left again.
    first_rows, later = ([m for m in some if not _settled_here(m, name, accepted)] for some in (first_rows, later))
    holding = {m.migration_uuid: m for m in first_rows + later if m.status not in RELEASED_STATUSES}
    for m in later:
        if m.status in RELEASED_STATUSES:
            holding.pop(m.migration_uuid, None)
    moving = {m.server_id: m for m in holding.values()}

    listed = {s.server_id: s for r in seen if r.read is Read.SERVERS for s in r.found if isinstance(s, ServerSeen)}
    on_hypervisor = {str(i) for r in seen if r.read is Read.HYPERVISOR for i in r.found}
    for server_id, s in sorted(listed.items()):
        row = moving.get(server_id)
        if row is not None and not (row.status == "finished" and row.source != name):
            out.append(_row_blocker(row, name))
        else:
            out.append(server_blocker(name, server_id, s.vm_state, s.task_state, fault=s.fault))
    out.extend(
        Blocker("hidden_server", i, detail=BLOCKER_KINDS["hidden_server"]) for i in sorted(on_hypervisor - set(listed))
    )
    out.extend(_row_blocker(m, name) for i, m in sorted(moving.items()) if i not in listed)

    asked = {r.target: r for r in seen if r.read is Read.CONSUMER}
    explained = set(listed) | on_hypervisor | set(moving) | set(holding)
    still: dict[str, float] = {}
    consumers = sorted({str(c) for r in seen if r.read is Read.ALLOCATIONS for c in r.found} - explained)
    for consumer in consumers:
        reading = asked.get(consumer)
        server = next((s for s in (reading.found if reading else ()) if isinstance(s, ServerSeen)), None)
        held_by = rows.get(consumer)
        if held_by is None and (reading is None or (server is not None and _is_coming(server))):
            why = "a build or unshelve has been scheduled to this host" if server else "Placement holds it here"
            out.append(Blocker("incoming", consumer, detail=why))
            continue
        if server is not None and server.host == name:
            out.append(server_blocker(name, consumer, server.vm_state, server.task_state))
            continue
        still[consumer] = leftovers.get(consumer, at)
        held_for_s = at - still[consumer]
        whose = held_by.server_id if held_by else consumer
        if held_for_s < policy.leftover_grace_s:
            detail = f"held by {'migration' if held_by else 'server'} {consumer}"
            out.append(Blocker("allocation", whose, since=still[consumer], detail=detail))
        else:
            warnings.append(Note("leftover_allocation", whose, f"Placement still holds resources here for {consumer}"))

    for m in sorted(rows.values(), key=lambda row: row.migration_id):
        recent = since is not None and (m.updated_at or m.created_at or 0.0) >= since
        if m.status in ("error", "failed") and recent:
            warnings.append(
                Note("failed_migration", m.server_id, f"{m.kind} {m.migration_id} ended {m.status}; files may be left")
            )
    if not policy.accept_residue:
        evacuated = {b.server_id for b in out if b.kind == "residue"}
        out.extend(residue_blocker(r) for r in residue if r.server_id not in evacuated)
    else:
        out = [b for b in out if b.kind != "residue"]
    if host.history_unknown and not policy.accept_residue:
        out.append(_history_unknown(host))
    blind = sorted(b.name for b in buses if b.blind_from is not None)
    if blind:
        out.append(Blocker("blind", detail=f"notifications of bus {', '.join(blind)} may have been missed"))
    proof = tuple(
        ProofRead(str(r.read), pass_number, r.seen_at, len(r.found)) for r in seen if r.read is not Read.CONSUMER
    )
    return Finding(at, tuple(out), tuple(warnings), proof), still


def rows_shown(reads: tuple[object, ...]) -> set[str]:
    """The servers of which a pass showed any migration row at all."""
    return {m.server_id for r in reads if isinstance(r, PassRead) for m in _rows(r)}


def _rows(read: PassRead) -> list[MigrationSeen]:
    return [m for m in read.found if isinstance(m, MigrationSeen)]


def _is_coming(server: ServerSeen) -> bool:
    """A server without a host that something is being done with, or that was never anywhere yet."""
    nowhere = server.host is None and not server.deleted
    return nowhere and (server.vm_state in (None, "building") or server.task_state is not None)


def _settled_here(row: MigrationSeen, host: str, accepted: frozenset[str]) -> bool:
    return row.status == "done" and (row.source != host or row.server_id in accepted)


def _split_rows(seen: Collection[PassRead]) -> tuple[list[MigrationSeen], list[MigrationSeen]]:
    """The rows read before the servers, and those read after Placement."""
    first: list[MigrationSeen] = []
    later: list[MigrationSeen] = []
    into = first
    for r in seen:
        if r.read is Read.MIGRATIONS:
            into.extend(_rows(r))
        elif r.read in (Read.PROVIDERS, Read.ALLOCATIONS):
            into = later
    return first, later


def _row_blocker(row: MigrationSeen, host: str) -> Blocker:
    since = row.created_at
    if row.status not in HOLDING_STATUSES:
        return Blocker("moving", row.server_id, since=since, detail=f"{row.kind} in unknown status {row.status!r}")
    if row.kind is Kind.EVACUATION and row.status == "done" and row.source == host:
        return Blocker(
            "residue",
            row.server_id,
            since=since,
            detail="it was evacuated; its disks, and perhaps its guest, stay until nova-compute runs here again",
            remedy=f"maintd residue clear {host}   (after looking)",
        )
    if row.status == "finished" and row.source == host:
        return Blocker(
            "unconfirmed_resize",
            row.server_id,
            since=since,
            detail="it runs elsewhere, its disks are still here, and a revert brings it back",
            remedy=f"openstack server migration confirm {row.server_id}",
        )
    if row.destination == host and row.source != host:
        return Blocker("incoming", row.server_id, since=since, detail=f"{row.kind}: {row.status}")
    return Blocker("moving", row.server_id, since=since, detail=f"{row.kind}: {row.status}")
