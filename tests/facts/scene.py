"""One closed host S, one server on it, and a Nova that says and shows what a row of docs/nova-facts.md says it does.

A test of a row is a few lines: what is heard (`hear`, a real sample with the row's publisher and host, through the
normalisers), what Nova and Placement would answer (`shows`, `row`, `holds`, `forgets`), and then what maintd makes of
it: where it believes the server to be (`host_of`), how far the move is (`phase`), what stands in the way (`why`), and
whether two passes prove S empty (`is_proven`). The passes ask in the order and with the questions of the real ones.

It holds no knowledge of Nova beyond that: what happens, in which order, is each test's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar

from maintd.domain import emptiness
from maintd.domain.events import Event, HostEmptied
from maintd.domain.fleet import Fleet
from maintd.domain.migrations import RELEASED_STATUSES
from maintd.domain.model import Because, Host, Kind, Knowledge, Migration, Phase, Policy, Server
from maintd.domain.observations import (
    BaselineCompleted,
    HostHinted,
    MigrationSeen,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    Read,
    ResidueCleared,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    TaskFailed,
    TimerDue,
)
from maintd.domain.reducer import reduce
from maintd.nova.notifications import Notification, event_type_label, normalise
from tests.nova import samples

S, D, T = "cmp-s", "cmp-d", "cmp-t"
"""The source, which is closed and watched; the destination; a third host."""
VM, OTHER = "vm-1", "vm-2"
MOVE = "move-1"
"""The uuid of the migration, where there is only one."""
API, OPERATOR = Because("api"), Because("operator")
BEGAN_AT = 1_795_000_000.0

O = TypeVar("O")  # noqa: E741
Question = tuple[Read, str | None, tuple[Any, ...]]
"""What is asked in a pass: the read, its target, and what the answer shows."""


def node(host: str) -> str:
    """The uuid of a host's compute node, which is its resource provider too."""
    return f"node-of-{host}"


@dataclass(frozen=True)
class Shown:
    """A server as Nova's API would show it; a `hidden` one only by the hypervisor call."""

    host: str | None
    state: str
    task: str | None
    hidden: bool
    changed_at: float


class Scene:
    """S is disabled and living, D and T are open; VM is active on S, and all of that is known."""

    def __init__(self, policy: Policy | None = None, *, empty: bool = False) -> None:
        self.now = BEGAN_AT
        self.fleet = Fleet(policy or Policy(has_cloud=True))
        self.fleet.put(Knowledge(memory_since=self.now))
        self.events: list[Event] = []
        self.service: dict[str, Any] = {"disabled": True, "disabled_reason": "kernel", "forced_down": False, "up": True}
        self.asks: Callable[[list[Question]], Iterable[Question]] = list
        self._ids = count(1)
        self._passes = 0
        self._servers: dict[str, Shown] = {}
        self._rows: dict[str, MigrationSeen] = {}
        self._held: set[str] = set()
        for host in (S, D, T):
            self.see(ServiceSeen(self.now, API, host, f"svc-{host}", up=True, asked_at=self.now))
            self.see(NodesSeen(self.now, API, host, (node(host),)))
        if not empty:
            self.shows(VM, S)
            self.holds(VM)
        self.wait(100.0)
        self.reconcile()
        self.see(BaselineCompleted(self.now, API, self.now))
        self.wait(1.0)
        self.hear_service("service.update", "disabled", disabled=True, disabled_reason="kernel")
        self.wait(1.0)

    # -- what happens -------------------------------------------------------------------------------------------------

    def see(self, *observations: Observation) -> list[Event]:
        """Let the core see something; what it publishes."""
        said: list[Event] = []
        for observation in observations:
            outcome = reduce(self.fleet, observation, lambda: f"id-{next(self._ids)}")
            self.fleet.apply(outcome)
            said += outcome.events
        self.events += said
        return said

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due meanwhile is done."""
        until = self.now + seconds
        while (due := self.fleet.take_due(until)) is not None:
            self.now = max(self.now, due[0])
            self.see(TimerDue(self.now, subject=due[1]))
        self.now = until

    def hear(
        self,
        event_type: str,
        by: str,
        host: str | None = S,
        *,
        case: str | None = None,
        task: str | None = None,
        state: str = "active",
        server: str = VM,
        request: str | None = "req-1",
        age: float = 0.0,
        **fields: Any,
    ) -> ServerSeen:
        """A notification of a server: `by` is a compute, or a whole publisher_id; `age` is how old the copy is in it.

        Returns what the normaliser made of it. A second passes before it is heard.
        """
        self.wait(1.0)
        (seen,) = self.normalised(
            event_type,
            case,
            by,
            uuid=server,
            host=host,
            state=state,
            task_state=task,
            request_id=request,
            updated_at=_iso(self.now - age),
            **fields,
        )
        assert isinstance(seen, ServerSeen)
        self.see(seen)
        return seen

    def hear_failure(self, task: str, server: str = VM) -> TaskFailed:
        """compute_task.<task>.error, from a conductor."""
        (seen,) = self.normalised(f"compute_task.{task}.error", None, "nova-conductor:ctl", instance_uuid=server)
        assert isinstance(seen, TaskFailed)
        self.wait(1.0)
        self.see(replace(seen, seen_at=self.now, emitted_at=self.now))
        return seen

    def hear_service(self, event_type: str, case: str | None = None, host: str = S, **fields: Any) -> ServiceSeen:
        """service.*, as it is signed whoever saved it."""
        (seen,) = self.normalised(
            event_type, case, f"nova-compute:{host}", **{"host": host, "uuid": f"svc-{host}", **fields}
        )
        assert isinstance(seen, ServiceSeen)
        self.see(seen)
        return seen

    def hear_hint(self, event_type: str, host: str) -> HostHinted:
        """A message that names a host by its publisher and no server."""
        self.wait(1.0)
        (seen,) = self.normalised(event_type, None, f"nova-compute:{host}")
        assert isinstance(seen, HostHinted)
        self.see(seen)
        return seen

    def normalised(self, event_type: str, case: str | None, by: str, **fields: Any) -> tuple[Observation, ...]:
        """What the normalisers make of a sample that is sent now."""
        publisher = by if ":" in by else f"nova-compute:{by}"
        sample: Notification = samples.notification(event_type, case, publisher=publisher, **fields)
        return normalise(replace(sample, timestamp=self.now, received_at=self.now))

    def ignores(self, event_type: str) -> bool:
        """Whether a message of this type, whatever host it names, is known and gives nothing."""
        data = {"host": S, "hosts": [S], "uuid": VM, "instance_uuid": VM, "state": "active"}
        payload = {"nova_object.name": "X", "nova_object.version": "1.0", "nova_object.data": data}
        sent = Notification("m-1", event_type, f"nova-compute:{S}", self.now, payload, "req-1", self.now)
        return normalise(sent) == () and event_type_label(event_type) == event_type

    def dies(self) -> None:
        """S is lost and forced down, as it must be before anybody evacuates."""
        self.service |= {"up": False, "forced_down": True}
        self.see(self._service())
        self.wait(1.0)

    def is_back(self) -> None:
        """The force-down is lifted and S's nova-compute runs again; S stays disabled."""
        self.service |= {"up": True, "forced_down": False}
        self.wait(1.0)
        self.see(self._service())
        self.wait(1.0)

    def clears_residue(self) -> None:
        """An operator has looked, and says that nothing is left on S."""
        self.see(ResidueCleared(self.now, OPERATOR, S, "op"))
        self.wait(1.0)

    # -- what Nova and Placement show ---------------------------------------------------------------------------------

    def shows(
        self, server: str, host: str | None, state: str = "active", task: str | None = None, hidden: bool = False
    ) -> None:
        """The API shows this server there from now on."""
        self._servers[server] = Shown(host, state, task, hidden, self.now)

    def row(
        self,
        status: str,
        kind: Kind = Kind.LIVE,
        source: str | None = S,
        destination: str | None = D,
        *,
        server: str = VM,
        uuid: str = MOVE,
    ) -> None:
        """os-migrations has this row from now on."""
        held = self._rows.get(uuid)
        number = held.migration_id if held else len(self._rows) + 1
        created_at = held.created_at if held else self.now
        updated_at = self.now if held else None
        self._rows[uuid] = MigrationSeen(
            self.now, API, server, number, uuid, kind, status, source, destination, "p-1", created_at, updated_at
        )

    def holds(self, *consumers: str) -> None:
        """Placement has these, and no other, consumers on S's provider."""
        self._held = set(consumers)

    def forgets(self, server: str) -> None:
        """The server is deleted: the API does not know it any more, nor any row of it."""
        self._servers.pop(server, None)
        self._rows = {uuid: row for uuid, row in self._rows.items() if row.server_id != server}

    def reconcile(self) -> None:
        """The whole cloud is read once over the API, a few seconds later: what changed just now has no version yet."""
        self.wait(5.0)
        asked_at = self.now
        self.wait(0.5)
        shown = {i: s for i, s in self._servers.items() if not s.hidden}
        self.see(*(self._server(i, asked_at) for i in shown))
        self.see(ServersListed(self.now, API, asked_at, None, frozenset(shown)))
        self.see(*(replace(row, seen_at=self.now, asked_at=asked_at) for row in self._rows.values()))

    def one_pass(self) -> None:
        """One verification pass over S: the questions of `NovaApi.verify` in their order, or as `asks` changes them."""
        self._passes += 1
        self.see(PassBegun(self.now, API, S, self._passes))
        rows = tuple(row for row in self._rows.values() if S in (row.source, row.destination))
        here = {i: s for i, s in self._servers.items() if s.host == S}
        moving = {row.server_id for row in rows if row.status not in RELEASED_STATUSES}
        explained = set(here) | moving | {row.migration_uuid for row in rows}
        told = self.service["disabled"] and self.service["up"]
        questions: list[Question] = [
            (Read.MIGRATIONS, None, rows),
            (Read.HYPERVISOR, node(S), tuple(here)),
            (Read.SERVERS, None, tuple(self._server(i, self.now) for i, s in here.items() if not s.hidden)),
            (Read.PROVIDERS, node(S), (node(S),)),
            (Read.ALLOCATIONS, node(S), tuple(sorted(self._held))),
            (Read.TRAITS, node(S), (emptiness.DISABLED_TRAIT,) if told else ()),
            *((Read.CONSUMER, i, (self._server(i, self.now),)) for i in sorted(self._held - explained)),
            (Read.MIGRATIONS, None, rows),
            (Read.SERVICE, None, (self._service(),)),
        ]
        for question in self.asks(questions):
            self._answer(*question)

    def _answer(self, read: Read, target: str | None, found: tuple[Any, ...]) -> None:
        """What an answer shows is seen by itself, and is a read of the pass besides."""
        asked_at = self.now
        self.wait(0.1)
        found = tuple(replace(o, seen_at=self.now, asked_at=asked_at) if not isinstance(o, str) else o for o in found)
        self.see(*(o for o in found if not isinstance(o, str)))
        if read is Read.SERVERS:
            self.see(ServersListed(self.now, API, asked_at, S, frozenset(o.server_id for o in found)))
        self.see(PassRead(self.now, API, S, self._passes, read, asked_at, target, found))

    def _server(self, server: str, asked_at: float) -> ServerSeen:
        shown = self._servers.get(server)
        if shown is None:
            return ServerSeen(self.now, API, server, emitted_at=asked_at, trusted=True, deleted=True, asked_at=asked_at)
        version = shown.changed_at if shown.changed_at < asked_at - 2.0 else None
        return ServerSeen(
            self.now,
            API,
            server,
            "p-1",
            server,
            shown.host,
            shown.state,
            shown.task,
            updated_at=version,
            emitted_at=asked_at,
            trusted=True,
            deleted=shown.state == "deleted",
            asked_at=asked_at,
        )

    def _service(self) -> ServiceSeen:
        down_since = None if self.service["up"] else self.now
        return ServiceSeen(
            self.now, API, S, f"svc-{S}", down_since=down_since, asked_at=self.now, emitted_at=self.now, **self.service
        )

    # -- what maintd makes of it --------------------------------------------------------------------------------------

    def host_of(self, server: str = VM) -> str | None:
        """Where maintd believes the server to be."""
        return self.server(server).host

    def server(self, server: str = VM) -> Server:
        """What maintd holds of the server."""
        return _there(self.fleet.server(server))

    def host(self, name: str = S) -> Host:
        """What maintd holds of a host."""
        return _there(self.fleet.host(name))

    def migration(self, server: str = VM) -> Migration:
        """The server's latest migration."""
        return self.fleet.migrations_of(server)[-1]

    def phase(self, server: str = VM) -> Phase:
        """How far the server's latest migration is."""
        return self.migration(server).phase

    def why(self) -> set[str]:
        """The kinds of what stands in the way of calling S empty: what `maintd why` would say now."""
        slice_ = _there(self.fleet.slice(S))
        return {b.kind for b in emptiness.blockers(slice_, slice_.host, self.fleet.policy, self.now)}

    def wants_pass(self) -> bool:
        """Whether S is a candidate: nothing known is in the way, so a verification pass is due."""
        verification = self.fleet.verification(S)
        return verification is not None and verification.verify_at is not None

    def finds(self) -> set[str]:
        """The kinds of blocker that passes over S find, whatever was known before."""
        for _ in range(3):  # one that is disturbed by what it reads itself finds nothing
            self.one_pass()
            self.wait(1.0)
        finding = self.host().finding
        return {b.kind for b in finding.blockers} if finding is not None else set()

    def is_proven(self) -> bool:
        """Whether passes, as many as may be disturbed and two more, make maintd say host.emptied."""
        before = len(self.emptied())
        for _ in range(5):
            self.one_pass()
            self.wait(self.fleet.policy.settle_s)
        return len(self.emptied()) > before

    def emptied(self) -> list[HostEmptied]:
        """Every host.emptied that was said of S."""
        return [e for e in self.events if isinstance(e, HostEmptied) and e.host == S]

    def said(self) -> list[str]:
        """The types of all events that were said, without their versions."""
        return [e.TYPE for e in self.events]

    def residue(self) -> list[tuple[str, str]]:
        """What the ledger has of S: kind and server."""
        return [(r.kind, r.server_id) for r in self.fleet.residue_on(S)]


def _there(value: O | None) -> O:
    assert value is not None
    return value


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
