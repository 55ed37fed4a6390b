"""How servers move: live migration, cold migration and resize, evacuation, with all the ways in which they end.

Order, publishers, stale hosts and allocations are those of recordings of a real Nova, which tests/simulator holds this
against. Not here: what can go wrong with a move between cells, or its revert; a destination that dies under a live
migration.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from maintd.simulator import notifications as wire
from maintd.simulator.engine import Steps
from maintd.simulator.notifications import Copy, Flavor, Request
from maintd.simulator.rows import Migration, Refused, Server
from maintd.simulator.state import LiveJob, State


class Moves(State):
    """A cloud whose servers can be moved."""

    # live migration

    def live_migrate(
        self, server_id: str, host: str | None = None, request: Request | None = None, *, force: bool = False
    ) -> None:
        """`os-migrateLive`; the migration's row appears when the conductor gets to it. `force` (2.30 to 2.67) asks no
        scheduler whether the host may be used, so it leads onto a closed one.
        """
        with self.lock:
            server = self._ready(server_id, "os-migrateLive", ("active", "paused"))
            if host is not None and host == server.host:
                raise Refused(400, f"Unable to migrate instance ({server_id}) to current host ({host}).")
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="migrating")
            self._go(server, self._live(server, copy, host, force, request), server.host)

    def _live(self, server: Server, copy: Copy, wanted: str | None, force: bool, request: Request) -> Steps:
        t = self.timing
        yield t.rpc_s
        if server.host is None:
            self._save(server, copy, request, task_state=None)  # it is nowhere any more: there is nothing to move
            return
        row = self._new_migration(server, "live-migration", "accepted", request)
        job = self._live_jobs[row.id] = LiveJob(row, copy=copy)
        source = row.source or ""
        process = next(p for p in self._processes if p.server_id == server.id)
        job.process = process
        self._hold_by_migration(row)
        yield t.schedule_s
        rejected = [source]
        forced = self.hosts.get(wanted or "") if force else None
        chosen = forced or self._schedule(copy, request, wanted, avoid=rejected)
        while chosen is not None and self.knobs.of("check", chosen.name, server).get("fail"):
            self._allocate(chosen, server.id, server.flavor)
            yield t.rpc_s
            self._exception(chosen.name, request, "check told to fail", "check_can_live_migrate_destination")
            self._free(chosen.name, server.id)
            rejected.append(chosen.name)
            chosen = self._schedule(copy, request, wanted, avoid=rejected)
        if chosen is None or not self.is_up(self.hosts[source]):
            self._give_back(row)
            self._row(row, status="error")
            self._save(server, copy, request, task_state=None)
            yield t.step_s
            self._no_valid_host("migrate_server", server, copy, request)
            return
        destination = chosen.name
        self._allocate(chosen, server.id, server.flavor)
        self._row(row, destination=destination)
        yield t.rpc_s
        self._row(row, status="queued")
        job.phase = "queued"
        yield t.step_s
        yield self.hosts[source].live
        self._row(row, status="preparing")
        job.phase = "preparing"
        yield t.step_s
        at_destination = replace(copy)
        self._act("live_migration_pre.start", destination, at_destination, request)
        knobs = self.knobs.of("pre_live_migration", destination, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            self._exception(destination, request, "pre_live_migration told to fail", "pre_live_migration")
            self._row(row, status="error")
            yield t.rpc_s
            yield from self._rollback(server, copy, row, request, "failed")
            return
        self._act("live_migration_pre.end", destination, at_destination, request)
        yield t.step_s
        if job.abort:
            yield from self._rollback(server, copy, row, request, "cancelled")
            self._act("live_migration_abort.end", source, copy, request)
            return
        self._row(row, status="running")
        job.phase = "running"
        outcome: list[str] = []
        yield from self._copying(server, copy, row, job, request, outcome)
        job.phase = "over"
        if outcome == ["error"]:
            self._row(row, status="error")
            self._save(server, copy, request, state="error", task_state=None)
        elif outcome != ["ok"]:
            yield t.rpc_s
            yield from self._rollback(server, copy, row, request, "cancelled" if outcome == ["cancelled"] else "failed")
        else:
            yield from self._live_post(server, copy, row, request)

    def _copying(
        self, server: Server, copy: Copy, row: Migration, job: LiveJob, request: Request, outcome: list[str]
    ) -> Steps:
        """The driver's loop: a tick every half second, the counters and the progress written every `report_s`."""
        tick = self.timing.tick_s
        total = row.old_flavor.memory_mb << 20
        began = saved = self.now()
        done = processed = post_copy_ends = 0.0
        while not outcome:
            knobs = self.knobs.of("live_migration", row.source, server)
            mode = str(knobs.get("mode", "converge"))
            seconds = max(float(knobs.get("seconds", 3.0)), tick)
            floor = float(knobs.get("floor", 0.4))
            step, elapsed = tick / seconds, self.now() - began
            if job.abort:
                outcome.append("cancelled")
            elif job.force:
                if self.timing.permit_post_copy and row.status == "running":
                    self._row(row, status="running (post-copy)")
                    post_copy_ends = self.now() + float(knobs.get("post_copy_s", 2.0))
                if self.now() >= post_copy_ends:
                    done = 1.0
                    outcome.append("ok")
            elif mode == "silent":
                pass
            elif mode == "stuck":
                if done < 1 - floor:
                    done = min(1 - floor, done + step)
                    processed += step
            elif mode == "diverge":
                phase = elapsed / seconds % 1.0
                done = (1 - floor) * (phase if phase < 0.7 else (1 - phase) * 0.7 / 0.3)
                processed += step
            elif mode in ("fail", "error") and elapsed >= seconds:
                outcome.append(mode)
            else:
                done = min(1.0, done + step)
                processed += step
                if done >= 1.0 - 1e-9 and mode not in ("fail", "error"):
                    outcome.append("ok")
            due = self.now() - saved >= float(knobs.get("report_s", 5.0))
            if due and mode != "silent" or outcome == ["ok"]:
                saved = self.now()
                done = min(done, 1.0)
                values = {
                    "memory_total": total,
                    "memory_processed": int(total * processed),
                    "memory_remaining": int(total * (1 - done)),
                    "disk_total": 0,
                    "disk_processed": 0,
                    "disk_remaining": 0,
                }
                if any(getattr(row, name) != value for name, value in values.items()):
                    self._row(row, **values)
                self._save(server, copy, request, progress=int(done * 100 + 1e-9))
            if not outcome:
                yield tick

    def _live_post(self, server: Server, copy: Copy, row: Migration, request: Request) -> Steps:
        t, source, destination = self.timing, row.source or "", row.destination or ""
        self._act("live_migration_post.start", source, copy, request)
        yield t.rpc_s
        at_destination = replace(copy)
        self._act("live_migration_post_dest.start", destination, at_destination, request)
        knobs = self.knobs.of("post_at_destination", destination, server)
        yield 2 * t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            self._save(
                server,
                at_destination,
                request,
                host=destination,
                state="error",
                task_state=None,
                power_state="pending",
                progress=0,
            )
            yield t.step_s
            for host in (destination, source):
                self._exception(host, request, "post_at_destination told to fail", "post_live_migration_at_destination")
            self._row(row, status="error")
            for _ in range(2):
                yield t.step_s
                self._save(server, at_destination, request)
            return
        self._save(
            server, at_destination, request, host=destination, task_state=None, power_state="running", progress=0
        )
        yield t.step_s
        self._act("live_migration_post_dest.end", destination, at_destination, request)
        yield t.rpc_s
        self._act("live_migration_post.end", source, copy, request)
        yield t.step_s
        self._row(row, status="completed")
        yield t.step_s
        self._free(source, row.uuid)

    def _rollback(self, server: Server, copy: Copy, row: Migration, request: Request, status: str) -> Steps:
        t, source, destination = self.timing, row.source or "", row.destination or ""
        self._act("live_migration_rollback.start", source, copy, request)
        self._give_back(row)
        yield t.step_s
        if not t.shared_storage:
            self._act("live_migration_rollback_dest.start", destination, replace(copy), request)
        self._save(server, copy, request, task_state=None, progress=0)
        yield t.step_s
        self._act("live_migration_rollback.end", source, copy, request)
        if not t.shared_storage:
            self._act("live_migration_rollback_dest.end", destination, replace(copy, task_state="migrating"), request)
        yield t.step_s
        self._row(row, status=status)

    def _live_job(self, server_id: str, migration_id: int) -> tuple[Server, Migration, LiveJob]:
        server = self.find_server(server_id)
        row = self.migrations.get(migration_id)
        job = self._live_jobs.get(migration_id)
        if row is None or job is None or row.server is not server:
            raise Refused(404, f"Migration {migration_id} for instance {server_id} not found.")
        return server, row, job

    def abort(self, server_id: str, migration_id: int, request: Request | None = None) -> None:
        """`DELETE /servers/{id}/migrations/{id}`: running, preparing or queued, else `Refused` 400."""
        with self.lock:
            server, row, job = self._live_job(server_id, migration_id)
            if row.status not in ("queued", "preparing", "running"):
                raise Refused(
                    400,
                    f"Migration {migration_id} state of instance {server_id} is {row.status}. Cannot "
                    "abort the migration in this state.",
                )
            self._go(server, self._aborting(server, row, job, request or self.new_request()), row.source)

    def _aborting(self, server: Server, row: Migration, job: LiveJob, request: Request) -> Steps:
        t, source = self.timing, row.source or ""
        yield t.rpc_s
        copy = self._load(server)
        self._act("live_migration_abort.start", source, copy, request)
        process = job.process
        if job.phase == "queued" and process is not None and not process.dead:
            self._end(process)
            self._give_back(row)
            self._row(row, status="cancelled")
            yield t.rpc_s
            self._save(server, copy, request, task_state=None)
            yield t.step_s
        elif job.phase == "over":
            self._exception(source, request, "live_migration_abort: no such job", "live_migration_abort")
            return
        else:
            job.abort = True
        self._act("live_migration_abort.end", source, copy, request)

    def force_complete(self, server_id: str, migration_id: int, request: Request | None = None) -> None:
        """`force_complete`: only while running, else `Refused` 400."""
        with self.lock:
            server, row, job = self._live_job(server_id, migration_id)
            if row.status != "running":
                raise Refused(
                    400,
                    f"Migration {migration_id} state of instance {server_id} is {row.status}. Cannot "
                    "force_complete while the migration is in this state.",
                )
            self._go(server, self._forcing(server, row, job, request or self.new_request()), row.source)

    def _forcing(self, server: Server, row: Migration, job: LiveJob, request: Request) -> Steps:
        yield self.timing.rpc_s
        copy = self._load(server)
        self._act("live_migration_force_complete.start", row.source or "", copy, request)
        job.force = True
        yield 0.0
        self._act("live_migration_force_complete.end", row.source or "", copy, request)

    # cold migration and resize

    def migrate(
        self,
        server_id: str,
        host: str | None = None,
        *,
        flavor: str | None = None,
        cross_cell: bool = False,
        request: Request | None = None,
    ) -> None:
        """`migrate`, or `resize` when a flavor (name or id) is given; `cross_cell` where it leads into another cell.

        A resize with its own host as `host` stays there, as Nova does it where `allow_resize_to_same_host` is set: the
        same steps, source and destination alike.
        """
        with self.lock:
            action = "migrate" if flavor is None else "resize"
            server = self._ready(server_id, action, ("active", "stopped"))
            new = server.flavor
            if flavor is not None:
                found = self.flavors.get(flavor) or next((f for f in self.flavors.values() if f.id == flavor), None)
                if found is None:
                    raise Refused(400, "Unable to locate requested flavor.")
                if found == server.flavor:
                    raise Refused(400, "When resizing, instances must change flavor!")
                new = found
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="resize_prep")
            self._go(server, self._cold(server, copy, host, new, cross_cell, request), server.host)

    def _cold(
        self, server: Server, copy: Copy, wanted: str | None, flavor: Flavor, cross_cell: bool, request: Request
    ) -> Steps:
        t = self.timing
        yield t.rpc_s
        if server.host is None:
            self._save(server, copy, request, task_state=None)
            return
        kind = "migration" if flavor is server.flavor else "resize"
        row = self._new_migration(server, kind, "pre-migrating", request, flavor)
        row.cross_cell = cross_cell
        source = row.source or ""
        self._hold_by_migration(row)
        yield t.schedule_s
        stays = wanted == source and flavor is not server.flavor
        chosen = self._schedule(copy, request, wanted, avoid=() if stays else (source,))
        if chosen is None:
            self._give_back(row)
            self._row(row, status="error")
            self._save(server, copy, request, task_state=None)
            yield t.step_s
            self._no_valid_host("migrate_server", server, copy, request)
            return
        destination = chosen.name
        self._works_on(server, destination)
        self._allocate(chosen, server.id, flavor)
        yield t.rpc_s
        self._exists(destination, copy, request)
        self._emit(
            "instance.resize_prep.start",
            f"nova-compute:{destination}",
            wire.instance_resize_prep(copy, request, flavor),
            request,
        )
        yield t.step_s
        self._row(row, destination=destination)
        self._save(server, copy, request)
        yield t.rpc_s
        self._emit(
            "instance.resize_prep.end",
            f"nova-compute:{destination}",
            wire.instance_resize_prep(copy, request, flavor),
            request,
        )
        yield t.rpc_s
        self._row(row, status="migrating")
        self._save(server, copy, request, task_state="resize_migrating")
        yield t.step_s
        self._act("resize.start", source, copy, request)
        knobs = self.knobs.of("migrate_disk", source, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            yield from self._move_failed(server, copy, row, source, request, "migrate_disk")
            self._give_back(row)
            return
        self._row(row, status="post-migrating")
        if cross_cell:
            self._save(server, copy, request, task_state="resize_migrated")
        else:
            self._save(server, copy, request, host=destination, task_state="resize_migrated")
        left_behind = replace(copy)
        yield t.step_s
        self._act("resize.end", source, copy, request)
        yield t.rpc_s
        self._save(server, copy, request, task_state="resize_finish", flavor=flavor)
        yield t.step_s
        self._act("resize_finish.start", destination, copy, request)
        knobs = self.knobs.of("finish_migration", destination, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            self._free(source, row.uuid)
            self.hosts[source].strays.add(server.id)
            yield from self._move_failed(server, copy, row, destination, request, "finish_migration")
            return
        self._row(row, status="finished")
        if cross_cell:
            self._place(server, destination)
        self._save(server, copy, request, state="resized", task_state=None)
        yield t.step_s
        self._act("resize_finish.end", destination, copy, request)
        if cross_cell:
            yield t.step_s
            self._hide(server, left_behind, source, request)
        if t.resize_confirm_window_s > 0:
            self.call_later(t.resize_confirm_window_s, lambda: self._confirm_unasked(server, row))

    def _hide(self, server: Server, left_behind: Copy, source: str, request: Request) -> None:
        """Between cells: the row of the source's cell stays as it was left, and is hidden; its disks are there too."""
        self.hosts[source].hidden[server.id] = server
        if self.timing.notify_on_state_change:
            self._emit(
                "instance.update",
                f"nova-compute:{self.controller}",
                wire.instance_update(left_behind, request, left_behind.state, left_behind.task_state, self.now()),
                request,
            )

    def _confirm_unasked(self, server: Server, row: Migration) -> None:
        """`resize_confirm_window` is over: the destination's timer confirms what nobody has confirmed or reverted."""
        with suppress(Refused):
            if row.status == "finished" and self.hosts[row.destination or ""].killed_at is None:
                self.confirm(server.id, self.new_request(periodic=True))

    def _move_failed(
        self, server: Server, copy: Copy, row: Migration, host: str, request: Request, operation: str
    ) -> Steps:
        self._row(row, status="error")
        self._save(server, copy, request, state="error")
        yield 2 * self.timing.step_s
        self._save(server, copy, request, task_state=None)
        yield self.timing.step_s
        self._exception(host, request, f"{operation} told to fail", operation)

    def _finished(self, server: Server) -> Migration:
        for row in reversed(self.migrations_of.get(server.id, [])):
            if row.status == "finished":
                return row
        raise Refused(400, f"Instance {server.id} has not been resized.")

    def confirm(self, server_id: str, request: Request | None = None) -> None:
        """`confirmResize`: only in VERIFY_RESIZE."""
        with self.lock:
            server = self._ready(server_id, "confirmResize", ("resized",))
            row = self._finished(server)
            self._row(row, status="confirming")
            self._go(server, self._confirming(server, row, request or self.new_request()), row.source)

    def _confirming(self, server: Server, row: Migration, request: Request) -> Steps:
        t, source = self.timing, row.source or ""
        yield t.rpc_s
        copy = self._load(server)
        at_source, publisher = copy, source
        if row.cross_cell:  # a conductor says both, and the first of the source cell's row
            at_source = replace(
                copy, host=source, node=row.source_node, state=row.was_state, task_state="resize_migrated"
            )
            publisher = self.controller
        self._act("resize_confirm.start", publisher, at_source, request)
        yield t.rpc_s + float(self.knobs.of("confirm", source, server).get("seconds", 0.0))
        if row.cross_cell:
            self.hosts[source].hidden.pop(server.id, None)
        self._row(row, status="confirmed")
        self._save(server, copy, request, state=row.was_state, task_state=None)
        yield t.step_s
        self._act("resize_confirm.end", publisher, copy, request)
        yield t.step_s
        self._free(source, row.uuid)
        self._save(server, copy, request)

    def revert(self, server_id: str, request: Request | None = None) -> None:
        """`revertResize`: the server goes back to its source, disabled or not."""
        with self.lock:
            server = self._ready(server_id, "revertResize", ("resized",))
            row = self._finished(server)
            if row.cross_cell:
                raise Refused(400, "The simulator cannot revert a move between cells.")
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="resize_reverting")
            self._row(row, status="reverting")
            self._go(server, self._reverting(server, copy, row, request), row.source)

    def _reverting(self, server: Server, copy: Copy, row: Migration, request: Request) -> Steps:
        t, source, destination = self.timing, row.source or "", row.destination or ""
        yield t.step_s
        self._exists(destination, copy, request)
        yield t.rpc_s
        self._row(row, status="reverted")
        self._save(server, copy, request)
        yield t.rpc_s
        self._act("resize_revert.start", source, copy, request)
        yield t.step_s
        self._save(server, copy, request, host=source, flavor=row.old_flavor)
        self._give_back(row)
        yield t.rpc_s
        self._save(server, copy, request)
        yield t.step_s
        self._save(server, copy, request, state=row.was_state, task_state=None)
        yield t.step_s
        self._act("resize_revert.end", source, copy, request)
        yield t.step_s
        self._save(server, copy, request)

    # evacuation

    def evacuate(
        self, server_id: str, host: str | None = None, *, ends_stopped: bool = True, request: Request | None = None
    ) -> None:
        """`evacuate`: only off a host that is down. `ends_stopped` is the behaviour since microversion 2.95."""
        with self.lock:
            server = self._ready(server_id, "evacuate", ("active", "stopped", "error"))
            if server.host is None:
                raise Refused(409, f"Cannot 'evacuate' instance {server_id} while it is on no host")
            source = self.hosts[server.host]
            if self.is_up(source):
                raise Refused(400, f"Compute service of {source.name} is still in use.")
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="rebuilding")
            row = self._new_migration(server, "evacuation", "accepted", request)
            self._emit("instance.evacuate", f"nova-api:{self.controller}", wire.instance_action(copy, request), request)
            self._go(server, self._evacuating(server, copy, row, host, ends_stopped, request))

    def _evacuating(
        self, server: Server, copy: Copy, row: Migration, wanted: str | None, ends_stopped: bool, request: Request
    ) -> Steps:
        t, source = self.timing, row.source or ""
        was = server.state
        yield t.schedule_s
        chosen = self._schedule(copy, request, wanted, avoid=(source,))
        if chosen is None:
            self._row(row, status="error")
            self._save(server, copy, request, state="error" if was == "error" else was, task_state=None)
            yield t.step_s
            self._no_valid_host("rebuild_server", server, copy, request)
            return
        host = chosen.name
        self._works_on(server, host)
        self._allocate(chosen, server.id, server.flavor)
        self._emit(
            "instance.rebuild_scheduled", f"nova-conductor:{host}", wire.instance_rebuild(copy, request), request
        )
        yield t.rpc_s
        self._row(row, status="pre-migrating", destination=host)
        self._save(server, copy, request)
        yield 2 * t.step_s
        self._exists(host, copy, request)
        self._rebuild("start", host, copy, request)
        yield t.step_s
        self._save(server, copy, request, power_state="pending")
        yield t.rpc_s
        self._save(server, copy, request, task_state="rebuild_block_device_mapping")
        yield 2 * t.step_s
        self._save(server, copy, request, task_state="rebuild_spawning")
        knobs = self.knobs.of("spawn", host, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            fault = wire.exception_payload(
                "NovaException", "spawn told to fail", module="nova.virt.simulator", function="spawn"
            )
            self._emit(
                "instance.rebuild.error",
                f"nova-compute:{host}",
                wire.instance_rebuild(copy, request, fault),
                request,
                "ERROR",
            )
            self._free(host, server.id)
            self._row(row, status="failed")
            yield t.step_s
            self._save(server, copy, request, state="error")
            yield 2 * t.step_s
            self._save(server, copy, request, task_state=None)
            yield t.step_s
            self._exception(host, request, "spawn told to fail", "spawn")
            return
        self._save(server, copy, request, state="active", task_state=None, power_state="running")
        if ends_stopped or was == "stopped":
            yield t.step_s
            self._save(server, copy, request, task_state="powering-off")
            yield t.step_s
            self._act("power_off.start", host, copy, request)
            yield t.step_s
            self._save(server, copy, request, state="stopped", task_state=None, power_state="shutdown")
            yield t.step_s
            self._act("power_off.end", host, copy, request)
        yield t.step_s
        self._rebuild("end", host, copy, request)
        yield t.step_s
        left = server.host or source  # not the row's source, where an earlier evacuation has come to an end meanwhile
        if left != host:
            self.hosts[left].residue.add(server.id)
        self._save(server, copy, request, host=host)
        self._row(row, status="done")

    def _rebuild(self, phase: str, host: str, copy: Copy, request: Request) -> None:
        self._emit(f"instance.rebuild.{phase}", f"nova-compute:{host}", wire.instance_rebuild(copy, request), request)
