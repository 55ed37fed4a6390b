"""Is a host empty, and if not, why not? Judgements over what one verification pass read, and over what is known.

A pass is a fixed sequence of reads (facts 6.3): the migrations of the host, its servers (asked of the hypervisor call
and of the server list, which see different ones), its allocations in Placement, the migrations again, the service. An
arrival shows in Placement first and a departure leaves it last, so this order can only delay a true verdict, never
make a false one. Whatever is missing, failed, unknown or not understood is a blocker: there is no way to "empty" but
through the end of `judge_pass` with no blocker left.

This module does not decide when to verify, how often, or what to publish; `reducer.py` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from maintd.domain import hindrances
from maintd.domain.buses import silence, unheard
from maintd.domain.copying import replace
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
    "not_attempted": "a server is here that nobody has asked to move",
    "last_attempt_failed": "the last attempt to move this server failed, or was given up",
    "cannot_live_migrate": "a server is here that Nova refuses to move live: for its state, or a device of its flavor",
    "unconfirmed_resize": "a resize or cold migration waits to be confirmed; the disks are still here",
    "soft_deleted": "a soft-deleted server still has its disks here",
    "stalled": "a server is on its way out and stands still",
    "hidden_server": "the hypervisor call lists a server that the server list does not: a resize between cells",
    "residue": "a server may have left its disks, or still run here, though Nova lists it elsewhere or not at all",
    "history_unknown": "the host was down when it was first seen; what was evacuated or deleted before is not known",
    "not_closed": "the compute service is enabled, or the scheduler has not been told that it is disabled",
    "cell_unknown": "the host's cell does not answer",
    "ambiguous_service": "there is not exactly one nova-compute service of this name",
    "several_nodes": "the service has more than one compute node, which cannot be judged",
    "no_cloud": "no [cloud] is configured, so nothing can be proven",
    "moving": "a server is on its way out, or being confirmed or reverted",
    "incoming": "a server is on its way to this host",
    "allocation": "Placement still holds resources here for a server or migration that has just left",
    "unverified": "the API has not been read to the end; the detail says why",
    "blind": "notifications may have been missed and are being made up for",
    "verifying": "nothing is in the way that is known; the proof is under way",
}
"""Every kind of blocker there is, with what it means: a closed list. What an operator must do comes before what goes by
itself; `docs/blockers.md` says of each when it comes and what to do."""

_SUMMARY: dict[str, tuple[str, str]] = {
    "not_attempted": ("1 server nobody has asked to move", "{} servers nobody has asked to move"),
    "last_attempt_failed": ("1 whose last move failed", "{} whose last move failed"),
    "cannot_live_migrate": ("1 that cannot be moved live", "{} that cannot be moved live"),
    "unconfirmed_resize": ("1 unconfirmed resize", "{} unconfirmed resizes"),
    "soft_deleted": ("1 soft-deleted server", "{} soft-deleted servers"),
    "stalled": ("1 stalled on the way out", "{} stalled on the way out"),
    "hidden_server": ("1 hidden by a resize between cells", "{} hidden by resizes between cells"),
    "residue": ("1 that may have left something here", "{} that may have left something here"),
    "history_unknown": ("what happened before maintd came is not known",) * 2,
    "not_closed": ("the scheduler may still place servers here",) * 2,
    "cell_unknown": ("its cell does not answer",) * 2,
    "ambiguous_service": ("not exactly one compute service of this name",) * 2,
    "several_nodes": ("more than one compute node, which maintd does not judge",) * 2,
    "no_cloud": ("no cloud to ask is configured",) * 2,
    "moving": ("1 on its way", "{} on their way"),
    "incoming": ("1 coming here", "{} coming here"),
    "allocation": (
        "1 just gone, of which Placement holds resources",
        "{} just gone, of which Placement holds resources",
    ),
    "unverified": ("Nova has not answered in full",) * 2,
    "blind": ("notifications may have been missed",) * 2,
    "verifying": ("nothing that is known, the proof is under way",) * 2,
}


def summary(found: Iterable[Blocker]) -> str:
    """The blockers in a line, for an operator at night: what is to be done first, how much of it, and what goes on."""
    counts = Counter(b.kind for b in found)
    return ", ".join(_SUMMARY[kind][counts[kind] > 1].format(counts[kind]) for kind in BLOCKER_KINDS if counts[kind])


OF_A_SERVER = frozenset(
    {
        "not_attempted",
        "last_attempt_failed",
        "cannot_live_migrate",
        "unconfirmed_resize",
        "soft_deleted",
        "stalled",
        "moving",
        "incoming",
    }
)
"""Blockers that end when their server is known to be elsewhere and no move of it touches the host."""

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


def server_blocker(server: Server, host: Host, migration: Migration | None = None) -> Blocker:
    """Why this server, which is on the host or on its way there, keeps it from being empty, and what to do next."""
    server_id, state = server.server_id, server.vm_state
    if migration is not None and migration.destination == host.name and migration.source != host.name:
        if migration.phase is not Phase.AWAITING_CONFIRMATION:
            return _incoming(migration, server.project_id)
    if migration is not None and migration.source == host.name:
        return migration_blocker(migration, server.project_id)

    def blocker(kind: str, detail: str | None, remedy: str | None, since: float | None = server.since) -> Blocker:
        return Blocker(kind, server_id, None, since, detail, remedy, server.project_id)

    if server.host != host.name and server.landing == host.name:
        return blocker("incoming", "it is being built or unshelved here", None)
    if state in ("soft-delete", "soft-deleted", "soft_deleted"):
        detail = "its disks stay until Nova reclaims it; `openstack server restore` brings it back"
        return blocker("soft_deleted", detail, f"openstack server delete --force {server_id}")
    if state == "building":
        return blocker("incoming", "it is being built here", None)
    if state == "shelved_offloaded":  # it has a host again: Nova gives it one before it is unshelved there
        return blocker("incoming", "it is being unshelved here", None)
    remedy, said = way_out(server, host)
    hindrance = hindrances.known(server.hindrance)
    if server.hindrance and hindrance is not None:
        said = _joined(said, hindrances.sentence(server.hindrance))
    if server.failed_at is not None or (server.fault and state != "error"):
        return blocker("last_attempt_failed", _joined(server.fault, said), remedy, server.failed_at or server.since)
    if state == "error":
        said = _joined(f"it is in ERROR: {server.fault}" if server.fault else "it is in ERROR", said)
        return blocker("cannot_live_migrate", said, remedy)
    if state not in _LIVE:
        return blocker("cannot_live_migrate", _joined(f"it is {state}", said), remedy)
    if hindrance is not None and hindrance.refused:
        return blocker("cannot_live_migrate", said, remedy)
    task = f"task {server.task_state}" if server.task_state else None
    return blocker("not_attempted", _joined(task, said), remedy)


_LIVE = frozenset({None, "active", "paused"})
"""States in which Nova takes a request to live-migrate; a state that is not known may be one of them."""


def way_out(server: Server, host: Host) -> tuple[str | None, str | None]:
    """The next command that helps to get this server off this host, and what is to be known before it is given.

    Nova live-migrates what is active or paused, moves cold what is active or stopped, and evacuates, from a host that
    is down, what is active, stopped or in ERROR; everything else has first to be brought into one of these states.
    """
    i, state = server.server_id, server.vm_state
    if state == "resized":
        return f"openstack server migration confirm {i}", "Nova moves it only once its resize is confirmed or reverted"
    if host.down:
        if state in (None, "active", "stopped", "error"):
            return f"openstack server evacuate {i}", "the host is down: make sure that its guests are, then evacuate it"
        if state == "shelved":
            return None, "the host is down: Nova offloads it only once nova-compute runs again"
        return (
            f"openstack server set --state error {i}",
            "the host is down: make sure that its guests are; Nova evacuates it once it is marked as in ERROR",
        )
    match state:
        case "error":
            return f"openstack server set --state active {i}", "look at it first; in this state Nova moves it nowhere"
        case "suspended":
            return f"openstack server resume {i}", "it can be moved once it runs"
        case "rescued":
            return f"openstack server unrescue {i}", "it can be moved once it is out of rescue"
        case "shelved":
            return (
                f"openstack server unshelve --wait {i} && openstack server shelve --offload {i}",
                "the client offloads only what it shelves itself",
            )
    hindrance = hindrances.known(server.hindrance)
    if hindrance is not None and hindrance.refused and not hindrance.cold:
        return f"openstack server shelve --offload {i}", None
    if state in _LIVE and not (hindrance is not None and hindrance.refused):
        return f"openstack --os-compute-api-version 2.30 server migrate --live-migration {i}", None
    if state == "paused":
        return f"openstack server unpause {i}", "it can be moved cold once it runs"
    return f"openstack server migrate --wait {i} && openstack server migration confirm {i}", None


def _joined(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def migration_blocker(migration: Migration, project_id: str | None = None) -> Blocker:
    """Why a migration away from a host still holds it."""
    i, project_id = migration.server_id, migration.project_id or project_id

    def blocker(kind: str, since: float | None, detail: str, remedy: str | None = None) -> Blocker:
        return Blocker(kind, i, migration.key, since or None, detail, remedy, project_id)

    what = f"{migration.kind}" + (f" to {migration.destination}" if migration.destination else "")
    if migration.phase is Phase.AWAITING_CONFIRMATION:
        detail = _AWAITING if migration.source != migration.destination else _AWAITING_HERE
        return blocker("unconfirmed_resize", migration.moved_at, detail, f"openstack server migration confirm {i}")
    if migration.stalled:
        remedy = f"openstack server migration list --server {i}"
        abortable = migration.phase in (Phase.QUEUED, Phase.PREPARING, Phase.RUNNING) and not migration.post_copy
        if migration.kind is Kind.LIVE and abortable and migration.migration_id is not None:
            number = migration.migration_id
            remedy = f"openstack --os-compute-api-version 2.65 server migration abort {i} {number}"
        detail = f"{what}: {migration.phase}, {migration.stalled}"
        return blocker("stalled", migration.stalled_since, detail, remedy)
    return blocker("moving", migration.begun_at, f"{what}: {migration.phase}")


_AWAITING = "it runs elsewhere, its disks are still here, and a revert brings it back"
_AWAITING_HERE = "it was resized in place; it stays here, and Nova moves it only once that is confirmed or reverted"


def _incoming(migration: Migration, project_id: str | None) -> Blocker:
    come = f"{migration.kind}" + (f" from {migration.source}" if migration.source else "") + f": {migration.phase}"
    project_id = migration.project_id or project_id
    return Blocker(
        "incoming", migration.server_id, migration.key, migration.begun_at or None, come, project_id=project_id
    )


def known_blockers(slice_: _Slice, host: Host, *, accept_residue: bool = False) -> tuple[Blocker, ...]:
    """Blockers that follow from what is held of the host, whatever the API said last."""
    by_server: dict[str, Migration] = {m.server_id: m for m in slice_.migrations}
    out: list[Blocker] = []
    named: set[str] = set()
    for s in slice_.servers:
        if host.name in (s.host, s.landing):
            named.add(s.server_id)
            out.append(server_blocker(s, host, by_server.get(s.server_id) if s.host == host.name else None))
    for m in slice_.migrations:
        if m.server_id in named:
            continue
        if m.source == host.name:
            out.append(migration_blocker(m))
        elif m.destination == host.name:
            out.append(_incoming(m, None))
    if not accept_residue:
        out.extend(residue_blocker(r) for r in slice_.residue if r.cleared_at is None)
    return tuple(out)


_EVACUATED = "it was evacuated; its disks, and perhaps its guest, stay until nova-compute runs here again"
_DELETED = "it was deleted while the host could not be reached; its guest and disks may still be here"
_LOOK = "look, then say so"


def residue_blocker(residue: Residue) -> Blocker:
    """Why residue keeps a host from being called empty."""
    detail = residue.detail or (_EVACUATED if residue.kind == "evacuated" else _DELETED)
    return _residue(residue.host, residue.server_id, residue.since, detail, residue.project_id)


def _residue(host: str, server_id: str, since: float | None, detail: str, project_id: str | None) -> Blocker:
    return Blocker(
        "residue",
        server_id,
        since=since,
        detail=f"{detail}: {_LOOK}",
        remedy=f"maintd residue clear {host} --server {server_id}",
        project_id=project_id,
    )


def blockers(slice_: _Slice, host: Host, policy: Policy, now: float) -> tuple[Blocker, ...]:
    """Why the host is not empty, for people. Empty only for a host that is proven so.

    What is held of the host and what its last pass found are one list, in the order of `BLOCKER_KINDS`: a server is in
    it once (and once more for its residue), as it is known now, with what only the pass knew. A server that only the
    hypervisor call shows is said to be hidden, whatever else is held of it.
    """
    if host.emptied:
        return ()
    found = host.finding.blockers if host.finding is not None and host.closed else ()
    found_at = host.finding.at if host.finding is not None else None
    hidden = {b.server_id for b in found if b.kind == "hidden_server"}
    out: list[Blocker] = []
    if not host.closed:
        out.append(_not_closed(host, "the compute service is enabled"))
    if host.cell_unknown:
        out.append(_cell_unknown(host))
    if not policy.has_cloud:
        out.append(Blocker("no_cloud", detail=BLOCKER_KINDS["no_cloud"]))
    if len(host.nodes) > 1:
        out.append(_several_nodes(len(host.nodes)))
    known = known_blockers(slice_, host, accept_residue=policy.accept_residue)
    out.extend(b for b in known if b.kind == "residue" or b.server_id not in hidden)
    if host.history_unknown and not policy.accept_residue:
        out.append(_history_unknown(host))
    here = {b.server_id: place for place, b in enumerate(out) if b.server_id and b.kind != "residue"}
    left = {b.server_id: place for place, b in enumerate(out) if b.server_id and b.kind == "residue"}
    said = {b.kind: place for place, b in enumerate(out) if b.server_id is None}
    for b in found:
        places: dict[str, int] = left if b.kind == "residue" else here
        place = places.get(b.server_id) if b.server_id is not None else said.get(b.kind)
        if place is None:
            out.append(replace(b, since=found_at) if b.since is None else b)
        elif out[place].kind == b.kind:
            out[place] = _completed(out[place], b)
    if not out:
        out.append(Blocker("verifying", since=found_at, detail=BLOCKER_KINDS["verifying"]))
    return tuple(sorted(out, key=lambda b: _ORDER.index(b.kind)))


_ORDER = tuple(BLOCKER_KINDS)


def _completed(blocker: Blocker, by: Blocker) -> Blocker:
    """A blocker, and what only another one about the same knows."""
    return replace(
        blocker,
        migration_key=blocker.migration_key or by.migration_key,
        since=blocker.since if blocker.since is not None else by.since,
        detail=blocker.detail or by.detail,
        remedy=blocker.remedy or by.remedy,
        project_id=blocker.project_id or by.project_id,
    )


def _not_closed(host: Host, detail: str) -> Blocker:
    return Blocker(
        "not_closed", detail=detail, remedy=f"openstack compute service set --disable {host.name} nova-compute"
    )


def _cell_unknown(host: Host) -> Blocker:
    detail = "the host's cell does not answer: what is on it is not known; see to the cell's database and message bus"
    return Blocker("cell_unknown", detail=detail, remedy=_services(host.name))


def ambiguous_blocker(host: str, count: int) -> Blocker:
    """Why a host is not judged under whose name there is not exactly one compute service."""
    return Blocker("ambiguous_service", detail=f"os-services lists {count} of this name", remedy=_services(host))


def _services(host: str) -> str:
    return f"openstack compute service list --service nova-compute --host {host}"


def _several_nodes(count: int) -> Blocker:
    return Blocker(
        "several_nodes",
        detail=f"{count} compute nodes (Ironic, for one): maintd judges only hosts that have one, and never calls this "
        "one empty",
        remedy="openstack hypervisor list --long",
    )


def _history_unknown(host: Host) -> Blocker:
    return Blocker(
        "history_unknown",
        since=host.down_since or host.seen_at or None,
        detail=f"{BLOCKER_KINDS['history_unknown']}: {_LOOK}",
        remedy=f"maintd residue clear {host.name}",
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


NOT_BACK_YET = "and the server has not arrived yet; its disks are here"
"""What a pass says of a server whose source has not taken it back."""


def not_back(reads: tuple[object, ...], host: str) -> tuple[str, ...]:
    """Servers whose move away from the host is reverted, and that it has not taken back.

    Nova says so before it has, and gives the server the move's allocation when it has (facts 6.3).
    """
    held = {str(c) for r in reads if isinstance(r, PassRead) and r.read is Read.ALLOCATIONS for c in r.found}
    rows = rows_shown(reads)
    return tuple(
        sorted({m.server_id for m in rows if m.status == "reverted" and m.source == host and m.migration_uuid in held})
    )


def evacuated_on(reads: tuple[object, ...], host: str) -> list[MigrationSeen]:
    """Rows of evacuations whose servers were rebuilt here, and are elsewhere with no row that says how they have left.

    Nova takes a second evacuation while the first is under way (`compute/api.py`, `evacuate`: of any task), and its row
    names the first one's source. Placement then goes on to hold resources here, and what is here no nova-compute looks
    for.
    """
    seen = [r for r in reads if isinstance(r, PassRead)]
    held = {str(c) for r in seen if r.read is Read.ALLOCATIONS for c in r.found}
    asked = [s for r in seen if r.read is Read.CONSUMER for s in r.found if isinstance(s, ServerSeen)]
    elsewhere = {s.server_id for s in asked if s.host not in (None, host)} & held
    rows = {m.migration_uuid: m for m in rows_shown(reads) if m.server_id in elsewhere}.values()
    left = [m for m in rows if m.source == host and m.status not in ("error", "failed", "cancelled", "reverted")]
    return [
        m
        for m in rows
        if m.kind is Kind.EVACUATION
        and m.destination == host
        and m.status in ("done", "completed")
        and not any(on.server_id == m.server_id and on.migration_id > m.migration_id for on in left)
    ]


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
    held: Callable[[str], Server | None] = lambda server_id: None,
    undecided: Callable[[str], bool] = lambda server_id: False,
) -> tuple[Finding, dict[str, float]]:
    """What a pass found. Returns the finding and the leftover consumers with when each was first seen.

    `held`: what is held of a server, for what a row does not tell (since when, whose). `accepted`: the evacuations
    from here that an operator has looked at, by uuid. `since`: when the host was closed; failed rows older than that
    are no warnings, but for evacuations to here. `leftovers`: from earlier passes. `undecided`: whether a server is
    being moved and nobody has said where to; what Placement holds here for it is then no leak, however long that lasts.
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
        out.append(ambiguous_blocker(name, len(services)))
    elif service.cell_unknown:
        out.append(_cell_unknown(host))
    elif not (service.disabled or service.forced_down):
        out.append(_not_closed(host, "the compute service is enabled"))
    elif service.up and not service.forced_down:
        traits = {str(t) for r in seen if r.read is Read.TRAITS for t in r.found}
        if DISABLED_TRAIT not in traits:
            out.append(
                Blocker(
                    "not_closed",
                    detail=f"the service is disabled, but its provider lacks {DISABLED_TRAIT}: the scheduler may "
                    "still place servers here; nova-compute mends that within a minute or so, else restart it",
                )
            )

    roots = {r.target for r in seen if r.read is Read.HYPERVISOR}
    if len(roots) > 1:
        out.append(_several_nodes(len(roots)))

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
            out.append(_row_blocker(row, name, held(row.server_id)))
        else:
            out.append(server_blocker(_as_held(s, held), host))
    hidden = on_hypervisor - set(listed)
    out.extend(hidden_blocker(i, moving.get(i), held(i)) for i in sorted(hidden))
    out.extend(_row_blocker(m, name, held(i)) for i, m in sorted(moving.items()) if i not in listed and i not in hidden)

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
            whose = server.project_id if server else None
            out.append(Blocker("incoming", consumer, detail=why, project_id=whose))
            continue
        if held_by is not None and held_by.status == "reverted" and held_by.source == name:
            # Nova says so before the source has taken the server back, and gives it the allocation when it has.
            why = f"{held_by.kind} is reverted, {NOT_BACK_YET}"
            out.append(
                Blocker("incoming", held_by.server_id, detail=why, project_id=_project_of(held(held_by.server_id)))
            )
            continue
        if server is not None and server.host == name:
            out.append(server_blocker(_as_held(server, held), host))
            continue
        still[consumer] = leftovers.get(consumer, at)
        held_for_s = at - still[consumer]
        whom = held_by.server_id if held_by else consumer
        coming = held_by is None and undecided(consumer)
        if held_for_s < policy.leftover_grace_s or coming:
            detail = f"held by {'migration' if held_by else 'server'} {consumer}"
            if coming:
                detail += ", which is being moved, perhaps to here: Nova does not say where to yet"
            of = server.project_id if server else _project_of(held(whom))
            out.append(Blocker("allocation", whom, since=still[consumer], detail=detail, project_id=of))
        else:
            warnings.append(Note("leftover_allocation", whom, f"Placement still holds resources here for {consumer}"))

    for m in sorted(rows.values(), key=lambda row: row.migration_id):
        if m.status not in ("error", "failed"):
            continue
        recent = since is not None and (m.updated_at or m.created_at or 0.0) >= since
        if m.kind is Kind.EVACUATION and m.destination == name:
            # However old: of two that were asked for at once both fail, and what one had begun here Nova never ends.
            left = "its guest may run here"
        elif recent:
            left = "files may be left"
        else:
            continue
        warnings.append(Note("failed_migration", m.server_id, f"{m.kind} {m.migration_id} ended {m.status}; {left}"))
    if not policy.accept_residue:
        evacuated = {b.server_id for b in out if b.kind == "residue"}
        out.extend(residue_blocker(r) for r in residue if r.server_id not in evacuated)
    else:
        out = [b for b in out if b.kind != "residue"]
    if host.history_unknown and not policy.accept_residue:
        out.append(_history_unknown(host))
    buses = tuple(buses)
    if missing_buses := unheard(host, buses):
        blind = [b.blind_from for b in buses if b.name in missing_buses and b.blind_from is not None]
        out.append(Blocker("blind", since=min(blind, default=None), detail=silence(buses, missing_buses)))
    proof = tuple(
        ProofRead(str(r.read), pass_number, r.seen_at, len(r.found)) for r in seen if r.read is not Read.CONSUMER
    )
    return Finding(at, tuple(out), tuple(warnings), proof), still


def rows_shown(reads: tuple[object, ...], *, last: bool = False) -> list[MigrationSeen]:
    """The migration rows that a pass showed, of whatever status; `last`: when it looked at them again, at its end."""
    seen = [r for r in reads if isinstance(r, PassRead)]
    first, later = _split_rows(seen)
    return later if last else first + later


def _rows(read: PassRead) -> list[MigrationSeen]:
    return [m for m in read.found if isinstance(m, MigrationSeen)]


def _is_coming(server: ServerSeen) -> bool:
    """A server without a host that something is being done with, or that was never anywhere yet."""
    nowhere = server.host is None and not server.deleted
    return nowhere and (server.vm_state in (None, "building") or server.task_state is not None)


def _settled_here(row: MigrationSeen, host: str, accepted: frozenset[str]) -> bool:
    return row.status == "done" and (row.source != host or row.migration_uuid in accepted)


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


def _project_of(known: Server | None) -> str | None:
    return known.project_id if known else None


def _as_held(seen: ServerSeen, held: Callable[[str], Server | None]) -> Server:
    """A row of the server list, with what is remembered of the server."""
    known = held(seen.server_id)
    same = known is not None and known.host == seen.host
    return Server(
        seen.server_id,
        seen.project_id or (known.project_id if known else None),
        host=seen.host,
        vm_state=seen.vm_state,
        task_state=seen.task_state,
        fault=seen.fault or (known.fault if known and same else None),
        since=known.since if known and same else None,
        failed_at=known.failed_at if known and same else None,
        hindrance=seen.hindrance if seen.hindrance is not None else (known.hindrance if known else None),
    )


def hidden_blocker(server_id: str, row: MigrationSeen | None, known: Server | None) -> Blocker:
    """A server that the hypervisor call alone shows: its row here is hidden while a resize to another cell waits."""
    project_id = _project_of(known)
    since = (row.updated_at or row.created_at) if row else None
    if row is not None and row.status == "finished":
        detail = f"a resize between cells waits to be confirmed: {_AWAITING}"
        return Blocker(
            "hidden_server",
            server_id,
            since=since,
            detail=detail,
            remedy=f"openstack server migration confirm {server_id}",
            project_id=project_id,
        )
    return Blocker(
        "hidden_server",
        server_id,
        since=since,
        detail=f"{BLOCKER_KINDS['hidden_server']}, or a row that Nova forgot",
        remedy=f"openstack server migration list --server {server_id}",
        project_id=project_id,
    )


def _row_blocker(row: MigrationSeen, host: str, known: Server | None) -> Blocker:
    server_id, project_id = row.server_id, _project_of(known)  # the row's is whose wish the move was

    def blocker(kind: str, detail: str, remedy: str | None = None, since: float | None = row.created_at) -> Blocker:
        return Blocker(kind, server_id, since=since, detail=detail, remedy=remedy, project_id=project_id)

    if row.status not in HOLDING_STATUSES:
        return blocker("moving", f"{row.kind} in unknown status {row.status!r}")
    if row.kind is Kind.EVACUATION and row.status == "done" and row.source == host:
        return _residue(host, server_id, row.created_at, _EVACUATED, project_id)
    if row.status == "finished" and row.source == host:
        detail = _AWAITING if row.destination != host else _AWAITING_HERE
        since = row.updated_at or row.created_at
        return blocker("unconfirmed_resize", detail, f"openstack server migration confirm {server_id}", since)
    if row.destination == host and row.source != host:
        come = f"{row.kind}" + (f" from {row.source}" if row.source else "")
        return blocker("incoming", f"{come}: {row.status}")
    return blocker("moving", f"{row.kind}" + (f" to {row.destination}" if row.destination else "") + f": {row.status}")
