"""A small cloud: hosts, servers, migrations and allocations that change in Nova's order and say so in Nova's words.

`Cloud` is assembled from bottom to top: `engine` (the event queue), `rows` (what is remembered), `state` (saving and
telling), `moves`, `lifecycle`, and here the compute services and what goes wrong with them. Each operation is a
generator that does what Nova's processes do, with a pause where Nova would take time.

What it is not: no network, no volumes, hardly any cells (a down one is pretended), no retries by the scheduler, no
crash of a destination in mid-move. Times between steps are constants near those measured on a real Nova (`Timing`).
"""

from __future__ import annotations

from collections.abc import Iterable

from maintd.simulator.lifecycle import Lifecycle
from maintd.simulator.notifications import Request
from maintd.simulator.rows import IN_PROGRESS, OCCUPYING, Host, Knobs, Migration, Provider, Refused, Server, Timing
from maintd.simulator.state import Publish

__all__ = ["Cloud", "Host", "Knobs", "Migration", "Provider", "Publish", "Refused", "Server", "Timing"]


class Cloud(Lifecycle):
    """The whole of it. Every public method takes the lock; `publish` is called under it, so order is kept.

    `clock` decides the time outside of steps; a step's own time is when it was due. With a `ManualClock`, `advance`
    moves the clock along with the steps.
    """

    # services

    def set_service(
        self,
        host_name: str,
        request: Request | None = None,
        *,
        disabled: bool | None = None,
        reason: str | None = None,
        forced_down: bool | None = None,
    ) -> Host:
        """Enable, disable or force down a compute service (`PUT /os-services/{id}`).

        As in Nova, only a compute that answers has its provider's trait changed with it, so that a host enabled while
        it is down keeps COMPUTE_STATUS_DISABLED. Raises `Refused` 404 and, for lifting a force-down while evacuations
        are not cleaned up, 400.
        """
        with self.lock:
            host = self.find_host(host_name)
            request = request or self.new_request()
            if forced_down is False and host.forced_down and self._undone_evacuations(host_name):
                raise Refused(
                    400,
                    f"Unable to force up host {host_name} as `done` evacuation migration records remain "
                    "associated with the host. Ensure the compute service has been restarted, "
                    "allowing these records to move to `completed` before retrying this request.",
                )
            if disabled is not None:
                host.disabled = disabled
                host.disabled_reason = reason if disabled else None
                if self.is_up(host):
                    self._sync_trait(host)
            if forced_down is not None:
                host.forced_down = forced_down
            host.changed_at = self.now()
            self._emit_service(host, "service.update", request)
            return host

    def disable(self, host_name: str, reason: str | None = None) -> None:
        self.set_service(host_name, disabled=True, reason=reason)

    def enable(self, host_name: str) -> None:
        self.set_service(host_name, disabled=False)

    def delete_service(self, host_name: str, request: Request | None = None) -> None:
        """`DELETE /os-services/{id}`. Raises `Refused` 409 while servers are there."""
        with self.lock:
            host = self.find_host(host_name)
            if host.servers:
                raise Refused(
                    409,
                    "Unable to delete compute service that is hosting instances. Migrate or delete the "
                    "instances first.",
                )
            if any(
                host_name in (row.source, row.destination) and row.status in OCCUPYING
                for rows in self.migrations_of.values()
                for row in rows
            ):
                raise Refused(409, "Unable to delete compute service that has in-progress migrations.")
            self._emit_service(host, "service.delete", request or self.new_request())
            del self.hosts[host_name]
            for node in (host.provider, *host.nodes):
                self.hosts_by_provider.pop(node.uuid)
            self.hosts_by_service.pop(host.service_id)

    def kill_compute(self, host_name: str) -> None:
        """nova-compute dies: no heartbeat from now on, and what it was doing stops where it is. No message says so."""
        with self.lock:
            host = self.find_host(host_name)
            if host.killed_at is None:
                host.killed_at = self.now()
                for process in [p for p in self._processes if host_name in p.hosts]:
                    self._end(process)

    def start_compute(self, host_name: str) -> None:
        """nova-compute is back: evacuated guests are destroyed and their rows `completed`, local deletes are reaped
        (no message), interrupted live migrations reset, the trait set as the service says."""
        with self.lock:
            host = self.find_host(host_name)
            host.killed_at = None
            self._sync_trait(host)
            request = self.new_request(periodic=True)
            evacuated = self._undone_evacuations(host_name)
            for row in evacuated:
                self._free(host_name, row.server.id)
                host.residue.discard(row.server.id)
                self._row(row, status="completed")
                self._save(row.server, self._load(row.server), request)
            host.residue.intersection_update(self.servers)  # what has a row elsewhere is nothing that Nova looks for
            busy = {process.server_id for process in self._processes}
            for server in list(host.servers.values()):
                if server.task_state is not None and server.id not in busy:
                    self._resume_after_crash(server, request)

    def _resume_after_crash(self, server: Server, request: Request) -> None:
        """What nova-compute does at its start with a server that something was under way with.

        A live migration that was running is said to be aborted, and its source's share stays with it. The row of one
        that was not, which Nova leaves as it was for ever, is set to error here.
        """
        if server.task_state == "deleting":
            self._go(server, self._deleting(server, self._load(server), request), server.host)
            return
        for row in self.migrations_of.get(server.id, ()):
            if row.status in IN_PROGRESS:
                if row.kind == "live-migration" and row.status == "running":
                    copy = self._load(server)
                    self._act("live_migration_abort.start", server.host or "", copy, request)
                    self._act("live_migration_abort.end", server.host or "", copy, request)
                elif row.kind == "live-migration":
                    self._give_back(row)
                elif row.source != server.host and row.source in self.hosts:
                    self.hosts[row.source].strays.add(server.id)  # a resize that ends like this leaves its files
                self._row(row, status="error")
        state = "error" if server.state == "building" else server.state
        self._save(server, self._load(server), request, state=state, task_state=None, progress=0)

    def _undone_evacuations(self, host_name: str) -> list[Migration]:
        return [
            row
            for rows in self.migrations_of.values()
            for row in rows
            if row.kind == "evacuation" and row.source == host_name and row.status == "done"
        ]

    def _sync_trait(self, host: Host) -> None:
        for node in (host.provider, *host.nodes):
            (node.traits.add if host.disabled else node.traits.discard)("COMPUTE_STATUS_DISABLED")
            node.generation += 1

    # what goes wrong in a cloud

    def leak_allocation(self, host: str, consumer: str | None = None) -> str:
        """An allocation that nobody remembers; returns its consumer."""
        with self.lock:
            consumer = consumer or self.new_uuid()
            self._allocate(self.hosts[host], consumer, self.flavors["m1.small"])
            return consumer

    def add_child_provider(self, host: str, name: str) -> Provider:
        """A nested provider (a NUMA cell, a VGPU) in the host's tree."""
        with self.lock:
            root = self.hosts[host].provider
            child = Provider(self.new_uuid(), f"{root.name}_{name}", root.uuid, root.uuid)
            self.hosts[host].children.append(child)
            return child

    def add_node(self, host: str, name: str) -> Provider:
        """One more compute node of the host's service. Servers are not told apart by node here: as with Ironic, the
        hypervisor call lists those of the service under each.
        """
        with self.lock:
            known, ident = self.hosts[host], self.new_uuid()
            node = Provider(ident, name, ident, traits={"COMPUTE_NODE", "OWNER_NOVA"})
            known.nodes.append(node)
            self.hosts_by_provider[ident] = known
            return node

    def lose_cell(self, hosts: Iterable[str], down: bool = True) -> None:
        """The database of these hosts' cell does not answer (or does again): the API leaves their rows out."""
        with self.lock:
            for name in hosts:
                self.hosts[name].in_down_cell = down
