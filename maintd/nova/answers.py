"""From an answer of Nova's or Placement's REST API to what was seen: the same for a live answer and for a recorded one.

An `Answer` is everything that is kept of a call: the question, when it was asked and answered, the parsed body, and
the purpose it was asked for. `normalise_answer` looks at nothing else, so a replay sees what the daemon saw. It never
raises: a body that is not what Nova documents is an answer we do not have. Of an answer we do not have nothing is
concluded; only where it was part of a verification pass, the pass is told that it is spoilt.

What needs more than one answer is kept by two small accumulators, used live and in a replay alike: `Pages` puts the
pages of a list together (only a complete list says who is *not* in it), `PassTracker` notices the first answer of a
pass.

Nova drops what it does not want to show without a word: a `host` filter without the right to it, servers and
migrations of a cell that is down, soft-deleted servers (facts 4.1). Each such list is treated as incomplete, or as an
error, here.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from maintd.domain.hindrances import of_flavor
from maintd.domain.model import Because, Kind, Progress
from maintd.domain.observations import (
    MigrationSeen,
    MovesListed,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    ProgressSeen,
    Read,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    ServicesListed,
)
from maintd.nova.notifications.envelope import read_time

BECAUSE_API = Because("api")
NOW_MARGIN_S = 2.0
"""Nova prints *now* as `updated` of a server that was never updated; this close to the question it is no version."""

_COMPUTE = "nova-compute"
_KINDS = {kind.value: kind for kind in Kind}
_RESOURCES = frozenset({"servers", "os-services", "os-migrations", "os-hypervisors", "resource_providers"})
_TRUE = frozenset({"", "1", "t", "true", "on", "y", "yes"})
_DOWN_CELLS_LISTED = (2, 69)
_OPEN_LISTS = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """One question to Nova or Placement and its answer, or why there is none.

    `at` is when the answer was complete, `asked_at` when the question was sent (seconds since the epoch, our clock).
    `request` is `GET /path?query`, with or without Nova's prefixes. `status` is None where no HTTP answer came, and
    then `error` says why. `purpose` is verify, reconcile or progress; `host` and `pass_number` belong to verify.
    """

    at: float
    service: str
    request: str
    microversion: str | None = None
    status: int | None = None
    body: Any = None
    asked_at: float | None = None
    purpose: str | None = None
    pass_number: int | None = None
    host: str | None = None
    error: str | None = None

    @property
    def since(self) -> float:
        """When the question was sent, at the latest."""
        return self.at if self.asked_at is None else self.asked_at


class _Undocumented(ValueError):
    """A body is not what Nova documents; the text says where."""


@dataclass(frozen=True, slots=True)
class _Question:
    resource: str
    path: tuple[str, ...]  # what follows the resource
    query: Mapping[str, str]

    def asks(self, key: str) -> bool:
        return self.query.get(key, "no").lower() in _TRUE


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one answer shows. `whole` makes, of the members of all pages, what the complete list says."""

    observations: tuple[Observation, ...] = ()
    reads: tuple[tuple[Read, str | None, tuple[object, ...]], ...] = ()
    members: tuple[Any, ...] = ()
    whole: Callable[[Answer, float, Iterable[Any]], tuple[Observation, ...]] | None = None
    following: str | None = None
    paged: bool = False


# -- questions ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def _question(request: str) -> _Question | None:
    """The resource that is asked for, whatever stands before it (`/v2.1`, `/compute/v2.1/PROJECT`, a whole URL)."""
    method, _, address = request.partition(" ")
    if method != "GET":
        return None
    try:
        parts = urlsplit(address)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))  # of a repeated key the last counts, as in Nova
    except ValueError:
        return None
    segments = [s for s in parts.path.split("/") if s]
    for i, segment in enumerate(segments):
        if segment in _RESOURCES:
            return _Question(segment, tuple(segments[i + 1 :]), query)
    return None


def _microversion(answer: Answer) -> tuple[int, int] | None:
    found = re.search(r"(\d+)\.(\d+)$", answer.microversion or "")
    return (int(found[1]), int(found[2])) if found else None


def _failure(answer: Answer) -> str | None:
    """Why there is no usable answer, in a phrase; None where there is one."""
    who = "Placement" if answer.service == "placement" else "Nova"
    if answer.error:
        return answer.error
    if answer.status is None:
        return f"{who} did not answer"
    if answer.status != 200:
        said = _message(answer.body)
        return f"{who} answered {answer.status}" + (f" ({said})" if said else "")
    return None


def _message(body: Any) -> str | None:
    """What a fault says: Nova has `{"itemNotFound": {"message": …}}`, Placement `{"errors": [{"detail": …}]}`."""
    if not isinstance(body, dict):
        return None
    for value in body.values():
        fault = value[0] if isinstance(value, list) and value else value
        if isinstance(fault, dict):
            said = fault.get("message") or fault.get("detail")
            if isinstance(said, str):
                return " ".join(said.split())[:200]
    return None


# -- fields ---------------------------------------------------------------------------------------------------------


def _rows(body: Any, key: str) -> list[dict[str, Any]]:
    rows = body.get(key) if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _Undocumented(f"the body has no list of {key}")
    return rows


def _row(body: Any, key: str) -> dict[str, Any]:
    row = body.get(key) if isinstance(body, dict) else None
    if not isinstance(row, dict):
        raise _Undocumented(f"the body has no {key}")
    return row


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise _Undocumented(f"{key} is {str(value)[:80]!r}")


def _required(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if isinstance(value, str) and value:
        return value
    raise _Undocumented(f"{key} is {str(value)[:80]!r}")


def _number(row: Mapping[str, Any], key: str) -> int | None:
    value = row.get(key)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise _Undocumented(f"{key} is {str(value)[:80]!r}")


def _required_number(row: Mapping[str, Any], key: str) -> int:
    value = _number(row, key)
    if value is None:
        raise _Undocumented(f"{key} is missing")
    return value


_time_of = lru_cache(maxsize=8192)(read_time)


def _moment(row: Mapping[str, Any], key: str) -> float | None:
    value = _text(row, key)
    if value is None:
        return None
    try:
        return _time_of(value)
    except (ValueError, OverflowError):
        raise _Undocumented(f"{key} is {value[:80]!r}") from None


def _marker(body: Any, key: str) -> str | None:
    """The marker of the next page, "" where there is one but it names no marker, None on the last page."""
    links = body.get(f"{key}_links") if isinstance(body, dict) else None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "next":
            try:
                return dict(parse_qsl(urlsplit(str(link.get("href"))).query)).get("marker", "")
            except ValueError:
                return ""
    return None


# -- Nova -----------------------------------------------------------------------------------------------------------


def _server(row: Mapping[str, Any], answer: Answer) -> ServerSeen | None:
    """A server as the API shows it; None for a row that does not say where it is (a cell that is down, no right to)."""
    server_id = _required(row, "id")
    if "OS-EXT-SRV-ATTR:host" not in row:
        return None
    vm_state, task_state = _text(row, "OS-EXT-STS:vm_state"), _text(row, "OS-EXT-STS:task_state")
    updated_at = _moment(row, "updated")
    if updated_at is not None and updated_at >= answer.since - NOW_MARGIN_S:
        updated_at = None
    fault = row.get("fault")
    # Soft-deleted behind a dead compute's back, a server is gone for good, and only its end tells (facts 2.1).
    gone = vm_state == "soft-delete" and row.get("OS-SRV-USG:terminated_at") is not None
    return ServerSeen(
        seen_at=answer.at,
        because=BECAUSE_API,
        server_id=server_id,
        project_id=_text(row, "tenant_id"),
        name=_text(row, "name"),
        host=_text(row, "OS-EXT-SRV-ATTR:host"),
        vm_state=vm_state,
        task_state=task_state,
        updated_at=updated_at,
        emitted_at=answer.since,
        trusted=True,
        deleted=gone or vm_state == "deleted" or row.get("status") == "DELETED",
        percent=_number(row, "progress") if task_state == "migrating" else None,
        fault=_text(fault, "message") if isinstance(fault, dict) else None,
        hindrance=_hindrance(row),
        memory_mb=_memory_mb(row),
        metadata_keys=_metadata_keys(row),
        asked_at=answer.since,
    )


def _metadata_keys(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names in its metadata; None where none is shown."""
    metadata = row.get("metadata")
    return tuple(sorted(map(str, metadata))) if isinstance(metadata, dict) else None


def _memory_mb(row: Mapping[str, Any]) -> int | None:
    """The memory that the flavor gives it; None where the flavor is only named (before 2.47)."""
    flavor = row.get("flavor")
    value = flavor.get("ram") if isinstance(flavor, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**40 else None


def _hindrance(row: Mapping[str, Any]) -> str | None:
    """What the flavor says against moving it live; None where its extra specs are not shown (before 2.61, no right)."""
    flavor = row.get("flavor")
    specs = flavor.get("extra_specs") if isinstance(flavor, dict) else None
    return of_flavor(specs) if isinstance(specs, dict) else None


def _servers_whole(host: str | None) -> Callable[[Answer, float, Iterable[Any]], tuple[Observation, ...]]:
    def whole(answer: Answer, asked_at: float, members: Iterable[Any]) -> tuple[Observation, ...]:
        return (ServersListed(answer.at, BECAUSE_API, asked_at, host, frozenset(members)),)

    return whole


def _servers(answer: Answer, question: _Question) -> _Reading:
    """servers/detail. Complete is only a list of all projects that shows soft-deleted servers (`soft_deleted=1`)."""
    rows = _rows(answer.body, "servers")
    wanted = question.query.get("host")
    seen: list[ServerSeen] = []
    blurred = False
    for row in rows:
        server = _server(row, answer)
        if server is None:
            blurred = blurred or row.get("status") != "UNKNOWN"
        elif wanted is not None and server.host != wanted and not server.deleted:
            raise _Undocumented(f"Nova ignored the filter host={wanted}: the right to filter is missing")
        else:
            seen.append(server)
    found: tuple[object, ...] = tuple(seen)
    if answer.purpose == "verify":
        if len(seen) != len(rows):
            raise _Undocumented(
                "the list has servers without a host: the right to see it is missing, or a cell is down"
            )
        if wanted is None:
            found = tuple(s for s in seen if s.host == answer.host)
    filters = set(question.query) - {"all_tenants", "soft_deleted", "host", "limit", "marker", "sort_key", "sort_dir"}
    complete = not filters and not blurred and question.asks("all_tenants") and question.asks("soft_deleted")
    return _Reading(
        observations=tuple(seen),
        reads=((Read.SERVERS, None, found),),
        members=tuple(_required(row, "id") for row in rows),
        whole=_servers_whole(wanted) if complete else None,
        following=_marker(answer.body, "servers"),
        paged=True,
    )


def _one_server(answer: Answer, question: _Question) -> _Reading:
    """servers/{id}: found, or not there (any more)."""
    server_id = question.path[0]
    if answer.status == 404:
        gone = ServerSeen(
            seen_at=answer.at,
            because=BECAUSE_API,
            server_id=server_id,
            emitted_at=answer.since,
            trusted=True,
            deleted=True,
            asked_at=answer.since,
        )
        return _Reading((gone,), ((Read.CONSUMER, server_id, (gone,)),))
    row = _row(answer.body, "server")
    if row.get("id") != server_id:
        raise _Undocumented(f"another server than {server_id} was answered")
    server = _server(row, answer)
    if server is None:
        raise _Undocumented(f"server {server_id} has no host: the right to see it is missing, or its cell is down")
    return _Reading((server,), ((Read.CONSUMER, server_id, (server,)),))


def _progress(row: Mapping[str, Any], server_id: str, answer: Answer) -> ProgressSeen:
    return ProgressSeen(
        seen_at=answer.at,
        because=BECAUSE_API,
        server_id=_text(row, "server_uuid") or server_id,
        migration_id=_required_number(row, "id"),
        migration_uuid=_required(row, "uuid"),
        status=_required(row, "status"),
        source=_text(row, "source_compute"),
        destination=_text(row, "dest_compute"),
        progress=Progress(
            memory_total_bytes=_number(row, "memory_total_bytes"),
            memory_processed_bytes=_number(row, "memory_processed_bytes"),
            memory_remaining_bytes=_number(row, "memory_remaining_bytes"),
            disk_total_bytes=_number(row, "disk_total_bytes"),
            disk_processed_bytes=_number(row, "disk_processed_bytes"),
            disk_remaining_bytes=_number(row, "disk_remaining_bytes"),
        ),
        created_at=_moment(row, "created_at"),
        updated_at=_moment(row, "updated_at"),
        asked_at=answer.since,
    )


def _server_migrations(answer: Answer, question: _Question) -> _Reading:
    """servers/{id}/migrations[/{id}]: live migrations under way, with their byte counters."""
    if len(question.path) == 3:
        rows = [_row(answer.body, "migration")]
    else:
        rows = _rows(answer.body, "migrations")
    return _Reading(tuple(_progress(row, question.path[0], answer) for row in rows))


def _migration(row: Mapping[str, Any], answer: Answer) -> MigrationSeen:
    kind = _KINDS.get(_required(row, "migration_type"))
    if kind is None:
        raise _Undocumented(f"migration_type is {row['migration_type'][:80]!r}")
    return MigrationSeen(
        seen_at=answer.at,
        because=BECAUSE_API,
        server_id=_required(row, "instance_uuid"),
        migration_id=_required_number(row, "id"),
        migration_uuid=_required(row, "uuid"),
        kind=kind,
        status=_required(row, "status"),
        source=_text(row, "source_compute"),
        destination=_text(row, "dest_compute"),
        asked_by=_text(row, "project_id"),
        created_at=_moment(row, "created_at"),
        updated_at=_moment(row, "updated_at"),
        asked_at=answer.since,
    )


def _migrations(answer: Answer, question: _Question) -> _Reading:
    """os-migrations, of all statuses or of one (the target of the read): Nova filters by one status at a time."""
    seen = tuple(_migration(row, answer) for row in _rows(answer.body, "migrations"))
    host = question.query.get("host")
    if host is not None and any(host not in (m.source, m.destination) for m in seen):
        raise _Undocumented(f"the list has migrations that do not touch {host}: the right to see hosts is missing")
    server_id = question.query.get("instance_uuid")
    complete = server_id is not None and set(question.query) <= {"instance_uuid", "limit", "marker"}
    return _Reading(
        seen,
        ((Read.MIGRATIONS, question.query.get("status"), seen),),
        members=tuple(m.migration_uuid for m in seen) if complete else (),
        whole=_moves_whole(server_id) if complete and server_id is not None else None,
        following=_marker(answer.body, "migrations"),
        paged=True,
    )


def _moves_whole(server_id: str) -> Callable[[Answer, float, Iterable[Any]], tuple[Observation, ...]]:
    def whole(answer: Answer, asked_at: float, members: Iterable[Any]) -> tuple[Observation, ...]:
        return (MovesListed(answer.at, BECAUSE_API, asked_at, server_id, frozenset(members)),)

    return whole


def _services_whole(answer: Answer, asked_at: float, members: Iterable[Any]) -> tuple[Observation, ...]:
    return (ServicesListed(answer.at, BECAUSE_API, asked_at, frozenset(members)),)


def _services(answer: Answer, question: _Question) -> _Reading:
    """os-services. Before 2.69 the services of a cell that is down are left out without a word: never complete."""
    seen = []
    for row in _rows(answer.body, "services"):
        if _required(row, "binary") != _COMPUTE:
            continue
        status, state, forced_down = _required(row, "status"), _text(row, "state"), row.get("forced_down", False)
        if not isinstance(forced_down, bool) or status not in ("enabled", "disabled", "UNKNOWN"):
            raise _Undocumented(f"service {row.get('host')!s:.80} has status {status[:80]!r}")
        uuid = row.get("id")
        seen.append(
            ServiceSeen(
                seen_at=answer.at,
                because=BECAUSE_API,
                host=_required(row, "host"),
                service_uuid=uuid if isinstance(uuid, str) else None,  # an integer of one cell before 2.53
                disabled=status == "disabled",
                disabled_reason=_text(row, "disabled_reason"),
                forced_down=forced_down,
                up=None if state is None else state == "up",
                down_since=_moment(row, "updated_at") if state == "down" else None,  # the last heartbeat at the latest
                cell_unknown=status == "UNKNOWN",
                emitted_at=answer.since,
                asked_at=answer.since,
            )
        )
    version = _microversion(answer)
    complete = (
        set(question.query) <= {"binary"}
        and question.query.get("binary", _COMPUTE) == _COMPUTE
        and version is not None
        and version >= _DOWN_CELLS_LISTED
    )
    # Two services of one name (Nova allows it in different cells) would each deny what the other says, so neither is
    # folded; a pass sees both, and finds them ambiguous. The name is there all the same, so nothing was removed.
    rows_of = Counter(s.host for s in seen)
    return _Reading(
        observations=tuple(s for s in seen if rows_of[s.host] == 1),
        reads=((Read.SERVICE, None, tuple(s for s in seen if s.host == answer.host)),),
        members=tuple(rows_of),
        whole=_services_whole if complete else None,
    )


def _hosted(row: Mapping[str, Any]) -> tuple[str, str]:
    """The service host and the uuid of a hypervisor."""
    return _required(_row(row, "service"), "host"), _required(row, "id")


def _resident(row: Mapping[str, Any]) -> tuple[object, ...]:
    """The ids of the servers that Nova's database has on the service's host, soft-deleted and hidden ones included."""
    return tuple(_required(server, "uuid") for server in _rows(row, "servers"))


def _nodes_whole(answer: Answer, asked_at: float, members: Iterable[Any]) -> tuple[Observation, ...]:
    nodes: dict[str, list[str]] = {}
    for host, node in members:
        nodes.setdefault(host, []).append(node)
    return tuple(NodesSeen(answer.at, BECAUSE_API, host, tuple(sorted(ids))) for host, ids in sorted(nodes.items()))


def _hypervisors(answer: Answer, question: _Question) -> _Reading:
    """os-hypervisors/detail: which nodes a service has; `with_servers`, each node of the host is a read of its own."""
    rows = _rows(answer.body, "hypervisors")
    members = tuple(_hosted(row) for row in rows)
    reads: tuple[tuple[Read, str | None, tuple[object, ...]], ...] = ()
    if answer.purpose == "verify" and question.asks("with_servers"):
        reads = tuple(
            (Read.HYPERVISOR, node, _resident(row))
            for row, (host, node) in zip(rows, members, strict=True)
            if host == answer.host
        )
    return _Reading(
        reads=reads,
        members=members,
        whole=_nodes_whole if set(question.query) <= {"with_servers", "limit", "marker"} else None,
        following=_marker(answer.body, "hypervisors"),
        paged=True,
    )


def _hypervisor(answer: Answer, question: _Question) -> _Reading:
    """os-hypervisors/{uuid}?with_servers: what Nova's own database has on the node, the broadest view there is."""
    if answer.purpose != "verify":
        return _Reading()
    node = question.path[0]
    row = _row(answer.body, "hypervisor")
    host, answered = _hosted(row)
    if (host, answered) != (answer.host, node):
        raise _Undocumented(f"hypervisor {answered} of host {host} was answered, not {node} of {answer.host}")
    if not question.asks("with_servers"):
        raise _Undocumented("the hypervisor was asked for without its servers")
    return _Reading(reads=((Read.HYPERVISOR, node, _resident(row)),))


# -- Placement ------------------------------------------------------------------------------------------------------


def _providers(answer: Answer, question: _Question) -> _Reading:
    found: tuple[object, ...] = tuple(_required(row, "uuid") for row in _rows(answer.body, "resource_providers"))
    return _Reading(reads=((Read.PROVIDERS, question.query.get("in_tree"), found),))


def _allocations(answer: Answer, question: _Question) -> _Reading:
    found: tuple[object, ...] = tuple(_row(answer.body, "allocations"))
    return _Reading(reads=((Read.ALLOCATIONS, question.path[0], found),))


def _traits(answer: Answer, question: _Question) -> _Reading:
    traits = answer.body.get("traits") if isinstance(answer.body, dict) else None
    if not isinstance(traits, list) or not all(isinstance(trait, str) for trait in traits):
        raise _Undocumented("the body has no list of traits")
    return _Reading(reads=((Read.TRAITS, question.path[0], tuple(traits)),))


# -- the table ------------------------------------------------------------------------------------------------------

_Reader = Callable[[Answer, _Question], _Reading]


def _reader(question: _Question) -> tuple[_Reader, Read | None, str | None] | None:
    """Who reads the answer to a question, and which read of a pass (with its target) fails if it cannot be read."""
    match question.resource, question.path:
        case "servers", ("detail",):
            return _servers, Read.SERVERS, None
        case "servers", (server_id,):
            return _one_server, Read.CONSUMER, server_id
        case "servers", (_, "migrations") | (_, "migrations", _):
            return _server_migrations, None, None
        case "os-migrations", ():
            return _migrations, Read.MIGRATIONS, question.query.get("status")
        case "os-services", ():
            return _services, Read.SERVICE, None
        case "os-hypervisors", ("detail",):
            return _hypervisors, Read.HYPERVISOR, None
        case "os-hypervisors", (node,):
            return _hypervisor, Read.HYPERVISOR, node
        case "resource_providers", ():
            return _providers, Read.PROVIDERS, question.query.get("in_tree")
        case "resource_providers", (provider, "allocations"):
            return _allocations, Read.ALLOCATIONS, provider
        case "resource_providers", (provider, "traits"):
            return _traits, Read.TRAITS, provider
    return None


def _read(answer: Answer) -> tuple[_Question | None, _Reading | None, tuple[Observation, ...]]:
    """The question, what the answer shows (None for no usable answer), and the observations it gives by itself."""
    question = _question(answer.request)
    found = _reader(question) if question is not None else None
    if question is None or found is None:
        return question, None, ()
    reader, read, target = found
    error = _failure(answer)
    if error is None or (reader is _one_server and _is_gone(answer)):
        try:
            reading = reader(answer, question)
            return question, reading, reading.observations + _pass_reads(answer, reading)
        except _Undocumented as wrong:
            error = str(wrong)
    if read is None:
        return question, None, ()
    return question, None, _pass_read(answer, read, target, (), complete=False, error=error)


def _is_gone(answer: Answer) -> bool:
    """Whether a 404 is Nova's word that there is no such server, and not some proxy's that there is no such page."""
    return (
        answer.status == 404
        and not answer.error
        and answer.microversion is not None
        and isinstance(answer.body, dict)
        and isinstance(answer.body.get("itemNotFound"), dict)
    )


def _pass_read(
    answer: Answer, read: Read, target: str | None, found: tuple[object, ...], *, complete: bool, error: str | None
) -> tuple[Observation, ...]:
    if answer.purpose != "verify" or answer.host is None or answer.pass_number is None:
        return ()
    return (
        PassRead(
            seen_at=answer.at,
            because=BECAUSE_API,
            host=answer.host,
            pass_number=answer.pass_number,
            read=read,
            asked_at=answer.since,
            target=target,
            found=found,
            complete=complete,
            error=error,
        ),
    )


def _pass_reads(answer: Answer, reading: _Reading) -> tuple[Observation, ...]:
    out: tuple[Observation, ...] = ()
    for read, target, found in reading.reads:
        out += _pass_read(answer, read, target, found, complete=reading.following is None, error=None)
    return out


def normalise_answer(answer: Answer) -> tuple[Observation, ...]:
    """What one answer shows by itself, a list that fits on one page included; the read of a pass comes last.

    Never raises. Nothing for questions that nobody here asks, and for answers that are none, unless they spoil a pass.
    """
    question, reading, observations = _read(answer)
    if question is None or reading is None or reading.whole is None:
        return observations
    if reading.following is not None or "marker" in question.query:
        return observations
    return _listed(observations, reading.whole(answer, answer.since, reading.members))


def _listed(observations: tuple[Observation, ...], listed: tuple[Observation, ...]) -> tuple[Observation, ...]:
    """What a complete list says comes after its rows, and before the reads of a pass."""
    plain = tuple(o for o in observations if not isinstance(o, PassRead))
    return plain + listed + observations[len(plain) :]


@dataclass(slots=True)
class _OpenList:
    asked_at: float
    marker: str
    usable: bool
    members: list[Any]


class Pages:
    """Puts the pages of lists together: `observations` is `normalise_answer`, and what a list says once it is complete.

    Feed it every answer in the order of their completion. Lists may interleave where they differ in question, purpose,
    host or pass. A page that does not follow on the one before it, or has an error, ends its list without a conclusion,
    and spoils the pass it belongs to. A list counts as asked when its first page was. At most 64 unfinished lists are
    remembered.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[object, ...], _OpenList] = OrderedDict()

    def observations(self, answer: Answer) -> tuple[Observation, ...]:
        """What an answer shows, and the list that it completes. Never raises."""
        question, reading, observations = _read(answer)
        if question is None:
            return observations
        query = tuple(sorted((k, v) for k, v in question.query.items() if k not in ("marker", "limit")))
        key = (question.resource, question.path, query, answer.purpose, answer.host, answer.pass_number)
        before = self._open.pop(key, None)
        if reading is None or not reading.paged:
            if reading is not None and reading.whole is not None:
                return _listed(observations, reading.whole(answer, answer.since, reading.members))
            return observations
        marker = question.query.get("marker")
        if marker is None:
            before = _OpenList(answer.since, "", True, [])
        elif before is None or before.marker != marker:
            return tuple(_without_page_before(o) for o in observations)
        before.usable = before.usable and reading.whole is not None
        before.members.extend(reading.members)
        if reading.following is None:
            if reading.whole is None or not before.usable:
                return observations
            return _listed(observations, reading.whole(answer, before.asked_at, before.members))
        before.marker = reading.following
        self._open[key] = before
        if len(self._open) > _OPEN_LISTS:
            self._open.popitem(last=False)
        return observations


def _without_page_before(observation: Observation) -> Observation:
    if not isinstance(observation, PassRead) or observation.error:
        return observation
    return replace(observation, complete=False, error="the page before this one is missing")


class PassTracker:
    """Notices the first answer of each verification pass, for a replay; live, who asks says `PassBegun` itself."""

    def __init__(self) -> None:
        self._passes: dict[str, int] = {}

    def begun(self, answer: Answer) -> PassBegun | None:
        """The beginning of the answer's pass, as of when its first question was sent; None if it had begun already."""
        if answer.purpose != "verify" or answer.host is None or answer.pass_number is None:
            return None
        known = self._passes.get(answer.host)
        if answer.error is not None or answer.request.startswith("GET /os-services"):
            self._passes.pop(answer.host, None)  # its last answer; once the host was opened, numbers begin anew
        else:
            self._passes[answer.host] = answer.pass_number
        if known == answer.pass_number:
            return None
        return PassBegun(answer.since, BECAUSE_API, answer.host, answer.pass_number)
