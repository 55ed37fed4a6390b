"""How servers come and go without moving: creating, stopping and starting, shelving, deleting in all its kinds."""

from __future__ import annotations

from maintd.simulator import notifications as wire
from maintd.simulator.engine import Steps
from maintd.simulator.moves import Moves
from maintd.simulator.notifications import Copy, Request
from maintd.simulator.rows import Host, Migration, Refused, Server


class Lifecycle(Moves):
    """A cloud whose servers are born and die."""

    # creating

    def create(
        self,
        name: str | None = None,
        *,
        flavor: str = "m1.small",
        host: str | None = None,
        project_id: str | None = None,
        request: Request | None = None,
    ) -> Server:
        """`POST /servers`. Scheduling comes later: a host disabled in between is not chosen any more."""
        with self.lock:
            request = request or self.new_request()
            known = self.flavors.get(flavor) or next((f for f in self.flavors.values() if f.id == flavor), None)
            if known is None:
                raise Refused(400, f"Flavor {flavor} could not be found.")
            if host is not None and host not in self.hosts:
                raise Refused(400, f"Compute host {host} could not be found.")
            server = self._new_server(name, known, project_id or request.project_id, request.user_id)
            self._go(server, self._creating(server, host, request))
            return server

    def _creating(self, server: Server, wanted: str | None, request: Request) -> Steps:
        t = self.timing
        yield t.schedule_s
        copy = self._load(server)
        chosen = self._schedule(copy, request, wanted)
        if chosen is None:
            self._save(server, copy, request, state="error", task_state=None)
            yield t.step_s
            self._no_valid_host("build_instances", server, copy, request)
            return
        # Where else it may be built is settled now; that such a host is closed meanwhile does not matter any more.
        others = [h for h in self.hosts.values() if h is not chosen and self._accepts(h)] if wanted is None else []
        yield from self._building(server, chosen, others, request)

    def _building(self, server: Server, chosen: Host, others: list[Host], request: Request) -> Steps:
        t = self.timing
        copy = self._load(server)
        host = chosen.name
        self._works_on(server, host)
        self._allocate(chosen, server.id, server.flavor)
        yield t.step_s
        if self.timing.notify_on_state_change:
            self._emit(
                "instance.update",
                f"nova-conductor:{self.controller}",
                wire.instance_update(copy, request, copy.state, copy.task_state, self.now()),
                request,
            )
        yield t.rpc_s
        yield chosen.builds
        copy = self._load(server)
        updated = copy.updated_at
        self._save(server, copy, request, task_state=None)
        server.updated_at = updated  # the first save of a build leaves no trace in updated_at
        yield t.step_s
        self._emit("instance.create.start", f"nova-compute:{host}", wire.instance_create(copy, request), request)
        yield t.step_s
        self._save(server, copy, request, host=host)
        yield t.rpc_s
        self._save(server, copy, request, task_state="networking")
        yield t.step_s
        self._save(server, copy, request, task_state="block_device_mapping")
        yield t.step_s
        self._save(server, copy, request, task_state="spawning")
        knobs = self.knobs.of("spawn", host, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("reschedule") and others and server.task_state != "deleting":
            yield from self._build_again(server, copy, host, others, request)
            return
        if knobs.get("fail"):
            yield from self._build_failed(server, copy, host, request)
            return
        if server.task_state == "deleting":
            yield from self._built_to_be_deleted(server, copy, host, request)
            return
        self._save(
            server, copy, request, state="active", task_state=None, power_state="running", launched_at=self.now()
        )
        yield t.step_s
        self._emit("instance.create.end", f"nova-compute:{host}", wire.instance_create(copy, request), request)

    def _build_again(self, server: Server, copy: Copy, host: str, others: list[Host], request: Request) -> Steps:
        """The build failed in a way that another host may do better: the conductor takes the next one of the list."""
        fault = wire.exception_payload(
            "NovaException", "spawn told to fail", module="nova.virt.simulator", function="spawn"
        )
        payload = wire.instance_create(copy, request, fault)
        self._emit("instance.create.error", f"nova-compute:{host}", payload, request, "ERROR")
        self._free(host, server.id)
        self._save(server, copy, request, host=None, task_state="scheduling")
        self._leaves(server, host)
        yield self.timing.rpc_s + float(self.knobs.of("reschedule", host, server).get("seconds", 0.0))
        alive = [other for other in others if self.hosts.get(other.name) is other]
        if not alive:
            self._save(server, copy, request, state="error", task_state=None)
            self._no_valid_host("build_instances", server, copy, request)
            return
        yield from self._building(server, alive[0], alive[1:], request)

    def _build_failed(self, server: Server, copy: Copy, host: str, request: Request) -> Steps:
        self._act("shutdown.start", host, copy, request)
        yield self.timing.step_s
        self._act("shutdown.end", host, copy, request)
        fault = wire.exception_payload(
            "NovaException", "spawn told to fail", module="nova.virt.simulator", function="spawn"
        )
        self._save(server, copy, request, host=None, task_state=None)
        self._emit(
            "instance.create.error",
            f"nova-compute:{host}",
            wire.instance_create(copy, request, fault),
            request,
            "ERROR",
        )
        self._free(host, server.id)
        yield self.timing.step_s
        self._save(server, copy, request, state="error", task_state=None)

    def _built_to_be_deleted(self, server: Server, copy: Copy, host: str, request: Request) -> Steps:
        """Deleted while it was being built: the delete waited for the build, whose last save then fails."""
        asked = self._load(server)
        asked.updated_at = copy.updated_at
        copy.state, copy.task_state, copy.power_state, copy.launched_at = "active", None, "running", self.now()
        fault = wire.exception_payload(
            "UnexpectedDeletingTaskStateError",
            "the server is being deleted",
            module="nova.objects.instance",
            function="save",
        )
        self._emit(
            "instance.create.error",
            f"nova-compute:{host}",
            wire.instance_create(copy, request, fault),
            request,
            "ERROR",
        )
        yield self.timing.rpc_s
        self._save(server, copy, request, state="active", task_state=None, power_state="running")
        yield from self._deleting(server, asked, request)

    def reset_state(self, server_id: str, state: str = "error", request: Request | None = None) -> None:
        """`os-resetState`: nothing but the row changes."""
        with self.lock:
            server = self.find_server(server_id)
            self._save(server, self._load(server), request or self.new_request(), state=state, task_state=None)

    # power, shelving

    def stop_server(self, server_id: str, request: Request | None = None) -> None:
        """`os-stop`."""
        self._power(server_id, "os-stop", "active", ("powering-off", "power_off", "stopped", "shutdown"), request)

    def start_server(self, server_id: str, request: Request | None = None) -> None:
        """`os-start`."""
        self._power(server_id, "os-start", "stopped", ("powering-on", "power_on", "active", "running"), request)

    def _power(
        self, server_id: str, action: str, needs: str, words: tuple[str, str, str, str], request: Request | None
    ) -> None:
        with self.lock:
            server = self._ready(server_id, action, (needs,))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state=words[0])
            self._go(server, self._powering(server, copy, words, request), server.host)

    def _powering(self, server: Server, copy: Copy, words: tuple[str, str, str, str], request: Request) -> Steps:
        host = server.host or ""
        yield 2 * self.timing.step_s
        self._act(f"{words[1]}.start", host, copy, request)
        yield self.timing.step_s
        self._save(server, copy, request, state=words[2], task_state=None, power_state=words[3])
        yield self.timing.step_s
        self._act(f"{words[1]}.end", host, copy, request)

    def shelve(self, server_id: str, request: Request | None = None) -> None:
        """`shelve`; offloaded at once unless `Timing.shelved_offload_s` is negative."""
        with self.lock:
            server = self._ready(server_id, "shelve", ("active", "stopped", "paused", "suspended"))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="shelving")
            self._go(server, self._shelving(server, copy, request), server.host)

    def _shelving(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield 2 * t.step_s
        self._exists(host, copy, request)
        self._act("shelve.start", host, copy, request)
        yield t.step_s + float(self.knobs.of("snapshot", host, server).get("seconds", 0.0))
        self._save(server, copy, request, task_state="shelving_image_uploading")
        yield t.step_s
        offload = t.shelved_offload_s >= 0
        self._save(
            server,
            copy,
            request,
            state="shelved",
            task_state="shelving_offloading" if offload else None,
            power_state="shutdown",
        )
        yield t.step_s
        self._act("shelve.end", host, copy, request)
        if offload:
            yield from self._offloading(server, copy, request)

    def shelve_offload(self, server_id: str, request: Request | None = None) -> None:
        """`shelveOffload` of a shelved server."""
        with self.lock:
            server = self._ready(server_id, "shelveOffload", ("shelved",))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="shelving_offloading")
            self._go(server, self._offloading(server, copy, request), server.host)

    def _offloading(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield t.step_s
        self._act("shelve_offload.start", host, copy, request)
        yield t.rpc_s + float(self.knobs.of("destroy", host, server).get("seconds", 0.0))
        self._save(server, copy, request)
        yield t.step_s
        self._save(server, copy, request, state="shelved_offloaded", task_state=None)
        self._free(host, server.id)
        yield t.rpc_s
        self._save(server, copy, request, host=None)
        yield t.step_s
        self._act("shelve_offload.end", host, copy, request)

    def unshelve(self, server_id: str, request: Request | None = None) -> None:
        """`unshelve`: where it is when it was not offloaded, else wherever the scheduler says."""
        with self.lock:
            server = self._ready(server_id, "unshelve", ("shelved", "shelved_offloaded"))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="unshelving")
            self._go(server, self._unshelving(server, copy, request), server.host)

    def _unshelving(self, server: Server, copy: Copy, request: Request) -> Steps:
        t = self.timing
        yield t.schedule_s
        if server.state == "shelved":
            host = server.host or ""
            self._act("power_on.start", host, copy, request)
            yield t.step_s
            self._save(server, copy, request, state="active", task_state=None, power_state="running")
            yield t.step_s
            self._act("power_on.end", host, copy, request)
            return
        chosen = self._schedule(copy, request, None)
        if chosen is None:
            self._save(server, copy, request, task_state=None)
            return
        host = chosen.name
        self._works_on(server, host)
        self._allocate(chosen, server.id, server.flavor)
        yield t.rpc_s
        self._act("unshelve.start", host, copy, request)
        yield t.step_s
        self._save(server, copy, request, task_state="spawning")
        yield 2 * t.step_s
        self._save(server, copy, request, host=host)
        yield t.step_s + float(self.knobs.of("spawn", host, server).get("seconds", 0.0))
        self._save(
            server, copy, request, state="active", task_state=None, power_state="running", launched_at=self.now()
        )
        yield t.step_s
        self._act("unshelve.end", host, copy, request)

    # deleting

    def delete(self, server_id: str, *, force: bool = False, request: Request | None = None) -> None:
        """`DELETE /servers/{id}`, or `forceDelete`. On a dead host it is done at once by the API, and the guest stays.

        A forced delete on a dead host sends no message at all. A server that waits to be confirmed is confirmed first,
        and where its source does not answer, the call fails (`Refused` 500) and nothing is deleted.
        """
        with self.lock:
            server = self.find_server(server_id)
            request = request or self.new_request()
            if server.task_state == "deleting" and not force:
                return
            host = self.hosts.get(server.host) if server.host is not None else None
            soft = self.timing.reclaim_interval_s > 0 and not force and server.state != "soft-delete"
            if server.state == "building" and host is not None and self.is_up(host):
                self._save(server, self._load(server), request, task_state="deleting")
                return  # the build goes on, and sees it at its end
            unconfirmed = self._unconfirmed(server)
            if unconfirmed is not None and self.hosts[unconfirmed.source or ""].killed_at is not None:
                self._save(server, self._load(server), request, task_state="deleting", progress=0)
                raise Refused(500, "Unexpected API Error. The compute did not answer in time.")
            for process in [p for p in self._processes if p.server_id == server_id]:
                self._end(process)
            if host is None or not self.is_up(host):
                if unconfirmed is None:
                    self._delete_locally(server, request, force, soft)
                else:
                    steps = self._confirming_and_deleting(server, unconfirmed, request, force, soft)
                    self._go(server, steps, unconfirmed.source)
                return
            copy = self._load(server)
            if soft:
                self._save(server, copy, request, task_state="soft-deleting")
                self._go(server, self._soft_deleting(server, copy, request), server.host)
            else:
                self._save(server, copy, request, task_state="deleting")
                self._go(server, self._deleting(server, copy, request), server.host)

    def _unconfirmed(self, server: Server) -> Migration | None:
        if server.state != "resized":
            return None
        return next(
            (row for row in self.migrations_of.get(server.id, ()) if row.status in ("finished", "confirming")), None
        )

    def _confirming_and_deleting(
        self, server: Server, row: Migration, request: Request, force: bool, soft: bool
    ) -> Steps:
        self._row(row, status="confirming")
        yield from self._confirming(server, row, request)
        self._delete_locally(server, request, force, soft)

    def _delete_locally(self, server: Server, request: Request, force: bool, soft: bool) -> None:
        copy = self._load(server)
        publisher = f"nova-api:{self.controller}"
        if not force:
            self._save(server, copy, request, task_state="soft-deleting" if soft else "deleting")
            self._emit("instance.delete.start", publisher, wire.instance_action(copy, request), request)
        self._save(
            server,
            copy,
            request,
            quiet=force,
            state="soft-delete" if soft else "deleted",
            task_state=None,
            terminated_at=self.now(),
        )
        if server.host is not None:
            self.hosts[server.host].residue.add(server.id)
        self._gone(server, copy)
        if not force:
            self._emit("instance.delete.end", publisher, wire.instance_action(copy, request), request)

    def _deleting(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield t.step_s
        unconfirmed = self._unconfirmed(server)
        if unconfirmed is not None:
            self._row(unconfirmed, status="confirming")
            yield from self._confirming(server, unconfirmed, request)
        self._act("delete.start", host, copy, request)
        yield t.step_s / 2
        self._act("shutdown.start", host, copy, request)
        yield 2 * t.step_s + float(self.knobs.of("destroy", host, server).get("seconds", 0.0))
        self._save(server, copy, request)
        yield t.step_s
        self._act("shutdown.end", host, copy, request)
        yield t.step_s
        self._save(
            server, copy, request, state="deleted", task_state=None, power_state="pending", terminated_at=self.now()
        )
        self._gone(server, copy, by=host)
        yield t.rpc_s
        self._act("delete.end", host, copy, request)

    def _gone(self, server: Server, copy: Copy, by: str | None = None) -> None:
        """The row is deleted, and with it its migrations' rows and every allocation of the server. `by`: the host whose
        compute did it, and has nothing of the server left, whatever became of its moves."""
        server.deleted_at = copy.deleted_at = self.now()
        self.servers.pop(server.id, None)
        self.deleted[server.id] = server
        for host in self.hosts.values():
            if self.is_up(host) and host.killed_at is None:
                host.residue.discard(server.id)  # nova-compute reaps what it finds of deleted servers (every half hour)
        touched = {server.host}
        for row in self.migrations_of.pop(server.id, ()):
            touched |= {row.source, row.destination}
            source = self.hosts.get(row.source or "")
            kept = row.status == "reverted" and source is not None and row.uuid in source.provider.allocations
            if kept and source is not None and row.source != by:
                source.residue.add(server.id)  # its source died as it was to take it back, and never heard of its end
            if row.status not in ("error", "failed"):
                self._free(row.source, row.uuid)
            self.migrations.pop(row.id, None)
            self._live_jobs.pop(row.id, None)
        for name in touched:
            self._free(name, server.id)
            if name in self.hosts:
                self.hosts[name].strays.discard(server.id)  # within five minutes in Nova
        if server.host is not None and server.host in self.hosts:
            self.hosts[server.host].servers.pop(server.id, None)

    def _soft_deleting(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield t.step_s
        unconfirmed = self._unconfirmed(server)
        if unconfirmed is not None:
            self._row(unconfirmed, status="confirming")
            yield from self._confirming(server, unconfirmed, request)
        self._act("soft_delete.start", host, copy, request)
        yield 2 * t.step_s
        self._save(server, copy, request, state="soft-delete", task_state=None, power_state="shutdown")
        yield t.step_s
        self._act("soft_delete.end", host, copy, request)
        yield t.reclaim_interval_s
        if server.host is None:
            return  # each compute reclaims what is on its own host (ComputeManager._reclaim_queued_deletes)
        periodic = self.new_request(periodic=True)
        yield from self._deleting(server, self._load(server), periodic)

    def restore(self, server_id: str, request: Request | None = None) -> None:
        """`restore` of a soft-deleted server."""
        with self.lock:
            server = self._ready(server_id, "restore", ("soft-delete",))
            request = request or self.new_request()
            for process in [p for p in self._processes if p.server_id == server_id]:
                self._end(process)
            copy = self._load(server)
            self._save(server, copy, request, task_state="restoring")
            self._go(server, self._restoring(server, copy, request), server.host)

    def _restoring(self, server: Server, copy: Copy, request: Request) -> Steps:
        host = server.host or ""
        yield self.timing.step_s
        self._act("restore.start", host, copy, request)
        yield self.timing.step_s
        self._save(server, copy, request, state="active", task_state=None, power_state="running")
        yield self.timing.step_s
        self._act("restore.end", host, copy, request)
