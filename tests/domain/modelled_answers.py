"""What the API would answer of a frame of a story, as the observations that `maintd.nova.answers` makes of it.

A short cut: the simulator builds bodies, and the normaliser takes them apart again, which is a hundred times the work.
That both ways give the same, whatever the state of the cloud, is a test of its own (`test_modelled_answers`). `moment`
is when the database was read, `asked` when the question was sent, `at` when the answer was complete.
"""

from __future__ import annotations

from collections.abc import Iterable

from maintd.domain.model import Kind
from maintd.domain.observations import MigrationSeen, ServerSeen, ServiceSeen
from maintd.nova.answers import BECAUSE_API, NOW_MARGIN_S
from maintd.simulator import Timing
from maintd.simulator.compute_api import PROGRESS_STATUSES, status_of
from maintd.simulator.state import last_heartbeat
from tests.domain.modelled_cloud import Frame, HostRow, MoveRow, ServerRow

KINDS = {kind.value: kind for kind in Kind}


def whole(at: float | None) -> float | None:
    """A row's time as the API prints it: in whole seconds."""
    return None if at is None else float(round(at * 1e6) // 1_000_000)


def service_seen(host: HostRow, timing: Timing, moment: float, at: float, asked: float) -> ServiceSeen:
    if host.silent:
        return ServiceSeen(at, BECAUSE_API, host.name, cell_unknown=True, emitted_at=asked, asked_at=asked)
    until = moment if host.killed_at is None else host.killed_at
    beat = last_heartbeat(host.seq, until, timing.report_interval_s)
    up = not host.forced_down and moment - beat <= timing.service_down_time_s
    return ServiceSeen(
        seen_at=at,
        because=BECAUSE_API,
        host=host.name,
        service_uuid=host.service_id,
        disabled=host.disabled,
        disabled_reason=host.reason,
        forced_down=host.forced_down,
        up=up,
        down_since=None if up else whole(max(beat, host.changed_at)),
        emitted_at=asked,
        asked_at=asked,
    )


def server_seen(row: ServerRow, at: float, asked: float) -> ServerSeen:
    updated = whole(row.updated_at)
    if updated is not None and updated >= asked - NOW_MARGIN_S:
        updated = None
    moving = row.task_state == "migrating" and status_of(row) in PROGRESS_STATUSES  # type: ignore[arg-type]
    return ServerSeen(
        seen_at=at,
        because=BECAUSE_API,
        server_id=row.id,
        project_id=row.project,
        name=row.name,
        host=row.host,
        vm_state=row.state,
        task_state=row.task_state,
        updated_at=updated,
        emitted_at=asked,
        trusted=True,
        deleted=row.state == "deleted" or (row.state == "soft-delete" and row.deleted),
        percent=row.progress if moving else None,
        fault="told to fail" if row.state == "error" else None,
        asked_at=asked,
        hindrance="",
        memory_mb=row.memory_mb,
        metadata_keys=(),
    )


def server_gone(server_id: str, at: float, asked: float) -> ServerSeen:
    return ServerSeen(
        at, BECAUSE_API, server_id, emitted_at=asked, trusted=True, deleted=True, asked_at=asked
    )  # fmt: skip


def move_seen(row: MoveRow, at: float, asked: float) -> MigrationSeen:
    return MigrationSeen(
        at,
        BECAUSE_API,
        row.server,
        row.order,
        row.uuid,
        KINDS[row.kind],
        row.status,
        row.source,
        row.destination,
        row.project,
        whole(row.created_at),
        whole(row.updated_at),
        asked,
    )


def silent_hosts(frame: Frame) -> frozenset[str]:
    """Hosts whose cell's database does not answer: whatever is there is left out of every list, without a word."""
    return frozenset(h.name for h in frame.hosts.values() if h.silent)


def servers_on(frame: Frame, host: str) -> list[ServerRow]:
    """`servers/detail?host=…`, soft-deleted ones included."""
    silent = silent_hosts(frame)
    return [s for s in frame.servers if s.host == host and not s.deleted and host not in silent]


def all_servers(frame: Frame) -> list[ServerRow]:
    silent = silent_hosts(frame)
    return [s for s in frame.servers if not s.deleted and s.host not in silent]


def servers_changed(frame: Frame, since: float) -> list[ServerRow]:
    """`servers/detail?changes-since=…`: deleted ones too, and none that was never updated."""
    silent, since = silent_hosts(frame), float(int(since))
    return [s for s in frame.servers if (s.updated_at or 0.0) >= since and s.host not in silent]


def server(frame: Frame, server_id: str) -> ServerRow | None:
    return next((s for s in frame.servers if s.id == server_id and not s.deleted), None)


def moves(
    frame: Frame,
    *,
    host: str | None = None,
    statuses: Iterable[str] | None = None,
    server_id: str | None = None,
    since: float | None = None,
) -> list[MoveRow]:
    """`os-migrations` with its filters; of several statuses, Nova is asked one after the other."""
    silent = silent_hosts(frame)
    wanted = None if statuses is None else frozenset(statuses)
    if since is not None:
        since = float(int(since))
    return [
        m
        for m in frame.moves
        if (host is None or host == m.source or host == m.destination)
        and (wanted is None or m.status in wanted)
        and (server_id is None or m.server == server_id)
        and (since is None or (m.updated_at is not None and m.updated_at >= since))
        and not (silent and (m.source in silent or m.destination in silent))
    ]
