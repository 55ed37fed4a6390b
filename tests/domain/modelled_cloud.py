"""A random story of the simulated Nova, played once and written down: what was true, what was shown, what was said.

`CloudStory(seed)` lets operators, tenants and bad luck loose on `maintd.simulator.Cloud`: every way in which a server
can leave a host, come back, or seem to have left. After each step of Nova it keeps a `Frame`: the rows that the API
would show at that moment (`modelled_answers` makes the observations of them), and what is really on each host. What
Nova said goes through the real normalisers once. A watcher may then live through the same story again and again, each
time hearing and reading it otherwise (`modelled_daemon`), which is far cheaper than a cloud of its own for each.

The truth is `Cloud.physically_on` with `Cloud.bound_for`: what is here, and what is on its way; never what the API
says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maintd.clock import ManualClock
from maintd.domain.observations import Observation
from maintd.nova.notifications import normalise, read_message
from maintd.simulator import Cloud, Refused, Timing
from maintd.simulator.notifications import Json
from maintd.simulator.rows import Server

T0 = 1_800_000_000.0
HOSTS = ("h1", "h2", "h3")
ACTS_S = 130.0
"""How long things go on happening; then there is only time to pass, so that whatever was missed can be made up for."""
END_S = 720.0


class ServerRow(NamedTuple):
    """A server as its row stands: `order` is the order of the lists."""

    order: int
    id: str
    name: str
    project: str
    host: str | None
    state: str
    task_state: str | None
    progress: int
    updated_at: float | None
    deleted: bool
    memory_mb: int


class MoveRow(NamedTuple):
    """A migration as its row stands."""

    order: int
    uuid: str
    server: str
    kind: str
    status: str
    source: str | None
    destination: str | None
    project: str
    created_at: float
    updated_at: float | None


class HostRow(NamedTuple):
    """A compute service, its node and its provider, as their rows stand. `servers` is the hypervisor call's list."""

    name: str
    seq: int
    service_id: str
    provider: str
    disabled: bool
    reason: str | None
    forced_down: bool
    killed_at: float | None
    changed_at: float
    silent: bool
    traits: tuple[str, ...]
    consumers: tuple[str, ...]
    servers: tuple[str, ...]


class Truth(NamedTuple):
    """What is really on a host. `here` is on it or bound for it, `hidden` the part of it that is residue; `strays` are
    the files of failed resizes, which are not in `here`."""

    here: frozenset[str]
    hidden: frozenset[str]
    strays: frozenset[str]


@dataclass(slots=True)
class Frame:
    """The cloud from `at` on, until the next one. Servers and moves stand as in Nova's lists: newest first."""

    at: float
    hosts: dict[str, HostRow]
    servers: tuple[ServerRow, ...]
    moves: tuple[MoveRow, ...]
    truth: dict[str, Truth]


@dataclass(frozen=True, slots=True)
class Said:
    """A notification, as what it shows: seen at the moment at which it was sent."""

    at: float
    publisher: str
    event_type: str
    shows: tuple[Observation, ...]


class CloudStory:
    """One story. `frames` and `said` are in the order of time; nothing in it depends on who watches.

    `at_step` is called after every step of the cloud, for a test that wants to ask the living cloud itself.
    """

    def __init__(self, seed: int, *, at_step: Callable[[Cloud, Frame], None] | None = None) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.frames: list[Frame] = []
        self.said: list[Said] = []
        slow = rng.choice((0.3, 1.0, 1.0, 4.0, 12.0))
        self.timing = Timing(
            step_s=0.05 * slow,
            rpc_s=0.2 * slow,
            schedule_s=0.3 * slow,
            report_interval_s=5.0,
            service_down_time_s=15.0,
            concurrent_live_migrations=rng.choice((1, 1, 3)),
            concurrent_builds=rng.choice((1, 10)),
            reclaim_interval_s=rng.choice((0.0, 0.0, 40.0, 400.0)),
            shelved_offload_s=rng.choice((0.0, 0.0, -1.0)),
            shared_storage=rng.random() < 0.7,
            permit_post_copy=rng.random() < 0.5,
            resize_confirm_window_s=rng.choice((0.0, 0.0, 20.0, 60.0)),
            notify_on_state_change=rng.random() < 0.7,
        )
        self.clock = ManualClock(T0)
        self.cloud = Cloud(self.clock, self._hear, seed=seed, timing=self.timing)
        self.strange = rng.random() < 0.6  # whether moves go wrong in this story
        for name in HOSTS:
            self.cloud.add_host(name)
        for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))):
            self.cloud.add_server("h1", state=rng.choice(("active", "active", "active", "stopped", "error")))
        if rng.random() < 0.4:
            self.cloud.add_server("h2")
        self._schedule()
        self._play(at_step)

    # -- writing down -------------------------------------------------------------------------------------------------

    def _hear(self, routing_key: str, inner: Json) -> None:
        now = self.cloud.now()
        notification = read_message(inner, received_at=now)
        shows = normalise(notification)
        if shows:
            self.said.append(Said(now, notification.publisher_id, notification.event_type, shows))

    def _play(self, at_step: Callable[[Cloud, Frame], None] | None) -> None:
        cloud, end = self.cloud, T0 + END_S
        self._write_down(T0)
        if at_step:
            at_step(cloud, self.frames[-1])
        while (due := cloud.next_due()) is not None and due <= end:
            cloud.advance(due)
            self._write_down(due)
            if at_step:
                at_step(cloud, self.frames[-1])
        self.clock.move_to(end)

    def _write_down(self, at: float) -> None:
        cloud = self.cloud
        hosts: dict[str, HostRow] = {}
        truth: dict[str, Truth] = {}
        for h in cloud.hosts.values():
            hosts[h.name] = HostRow(
                h.name,
                h.seq,
                h.service_id,
                h.provider.uuid,
                h.disabled,
                h.disabled_reason,
                h.forced_down,
                h.killed_at,
                h.changed_at,
                h.in_down_cell,
                tuple(sorted(h.provider.traits)),
                tuple(h.provider.allocations),
                (*h.servers, *h.hidden),
            )
            here = cloud.physically_on(h.name, strays=False) | cloud.bound_for(h.name)
            truth[h.name] = Truth(frozenset(here), frozenset(h.residue), frozenset(h.strays))
        servers = tuple(
            ServerRow(
                s.seq,
                s.id,
                s.name,
                s.project_id,
                s.host,
                s.state,
                s.task_state,
                s.progress,
                s.updated_at,
                s.deleted_at is not None,
                s.flavor.memory_mb,
            )
            for s in reversed(cloud.all_servers)
        )
        moves = tuple(
            MoveRow(
                m.id,
                m.uuid,
                m.server.id,
                m.kind,
                m.status,
                m.source,
                m.destination,
                m.server.project_id,
                m.created_at,
                m.updated_at,
            )
            for m in reversed(cloud.migrations.values())
        )
        last = self.frames[-1] if self.frames else None
        if last is not None:
            # What has not changed is shared, so that what was made of it can be, too.
            servers = last.servers if servers == last.servers else servers
            moves = last.moves if moves == last.moves else moves
            hosts = last.hosts if hosts == last.hosts else hosts
            truth = last.truth if truth == last.truth else truth
            if servers is last.servers and moves is last.moves and hosts is last.hosts and truth is last.truth:
                return
            if last.at == at:
                self.frames.pop()
        self.frames.append(Frame(at, hosts, servers, moves, truth))

    # -- what happens -------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        rng = self.rng
        self._at(rng.uniform(0, 20), self._close, "h1")
        for _ in range(rng.choice((1, 2, 3, 5, 8))):
            self._at(rng.uniform(0, ACTS_S), self._act)
        if rng.random() < 0.2:  # resized where it is, before the host is closed or as it is
            self._at(rng.uniform(0, 18), self._resize_here, "h1")
        if rng.random() < 0.4:  # a build that races the closing
            for _ in range(rng.randint(1, 3)):
                self._at(rng.uniform(0, 20), self._build, "h1" if rng.random() < 0.4 else None)
        for at in (80.0, 100.0, 125.0):
            if rng.random() < 0.25:
                self._at(at, self._refill)
        for at in (55.0, 90.0, 120.0):
            if rng.random() < 0.6:
                self._at(at, self._sweep)

    def _at(self, delay_s: float, act: Callable[..., object], *args: object) -> None:
        def run() -> None:
            try:
                act(*args)
            except Refused:
                return  # Nova has said no, as it would to anybody

        if self.cloud.now() + delay_s <= T0 + ACTS_S + 20.0:
            self.cloud.call_later(delay_s, run)

    def _any(self, of: Sequence[str] | None = None) -> Server | None:
        servers = [s for s in self.cloud.servers.values() if of is None or s.id in of]
        return self.rng.choice(servers) if servers else None

    def _act(self) -> None:
        rng = self.rng
        acts: tuple[tuple[Callable[..., object], int], ...] = (
            (self._build, 3),
            (self._leave, 5),
            (self._delete, 3),
            (self._power, 1),
            (self._settle_resize, 3),
            (self._open, 2),
            (self._close_any, 2),
            (self._kill, 2),
            (self._start, 2),
            (self._evacuate, 2),
            (self._unshelve, 1),
            (self._restore, 1),
            (self._lift, 1),
            (self._meddle, 1),
            (self._remove_service, 1),
            (self._silence_cell, 1),
            (self._reset, 1),
        )
        rng.choices([act for act, _ in acts], [weight for _, weight in acts])[0]()

    def _build(self, host: str | None = None) -> None:
        rng, knobs = self.rng, self.cloud.knobs
        server = self.cloud.create(host=host if host in self.cloud.hosts else None)
        seconds = rng.choice((0.0, 0.0, 2.0, 30.0, 60.0))
        how = rng.choices(("well", "fail", "reschedule"), (5, 1, 4))[0]
        fails, elsewhere = how == "fail", how == "reschedule"
        knobs.set("spawn", server=server.id, seconds=seconds, fail=fails, reschedule=elsewhere)
        if how == "reschedule":  # the first try fails, and the second comes late; it does well, mostly
            pause_s = rng.choice((1.0, 20.0, 50.0))
            knobs.set("reschedule", server=server.id, seconds=pause_s)
            then_s, fails = rng.choice((1.0, 10.0)), self._strange(0.1)
            first_s = self.timing.schedule_s + 2 * self.timing.rpc_s + 8 * self.timing.step_s + seconds
            self.cloud.call_later(
                first_s + pause_s / 2, lambda: knobs.set("spawn", server=server.id, seconds=then_s, fail=fails)
            )

    def _close_any(self) -> None:
        self._close(self.rng.choice(tuple(self.cloud.hosts)))

    def _close(self, name: str) -> None:
        rng, host = self.rng, self.cloud.find_host(name)
        if host.disabled or host.forced_down:
            return
        how = rng.random()
        reason = rng.choice(("maintenance", "quarantine", None))
        if how < 0.65:
            self.cloud.set_service(name, disabled=True, reason=reason)
            for server in list(host.servers.values()):
                if rng.random() < 0.9:
                    self._at(rng.uniform(0, 30), self._leave, server.id)
            return
        if how < 0.9:
            self.cloud.kill_compute(name)
        if rng.random() < 0.8:
            self.cloud.set_service(name, forced_down=True)
        if rng.random() < 0.3:
            self.cloud.set_service(name, disabled=True, reason=reason)
        for server in list(host.servers.values()):
            if rng.random() < 0.6:
                self._at(rng.uniform(1, 40), self._evacuate, server.id)
            elif rng.random() < 0.6:
                self._at(rng.uniform(1, 40), self._delete, server.id)
        if rng.random() < 0.6:
            self._at(rng.uniform(20, 120), self._start, name)
            self._at(rng.uniform(60, 140), self._lift, name)

    def _open(self) -> None:
        closed = [h.name for h in self.cloud.hosts.values() if h.disabled]
        if closed:
            self.cloud.set_service(self.rng.choice(closed), disabled=False)

    def _lift(self, name: str | None = None) -> None:
        down = [h.name for h in self.cloud.hosts.values() if h.forced_down]
        if name is None and down:
            name = self.rng.choice(down)
        if name is not None and self.cloud.find_host(name).forced_down:
            self.cloud.set_service(name, forced_down=False)

    def _kill(self) -> None:
        name = self.rng.choice(tuple(self.cloud.hosts))
        self.cloud.kill_compute(name)
        if self.rng.random() < 0.7:
            self._at(self.rng.uniform(1, 60), self._start, name)
        for server in list(self.cloud.hosts[name].servers.values()):
            if self.rng.random() < 0.4:
                act = self.rng.choice((self._evacuate, self._delete))
                self._at(self.rng.uniform(5, 45), act, server.id)

    def _start(self, name: str | None = None) -> None:
        dead = [h.name for h in self.cloud.hosts.values() if h.killed_at is not None]
        name = name if name in dead else self.rng.choice(dead) if dead else None
        if name is not None:
            self.cloud.start_compute(name)

    def _remove_service(self) -> None:
        name = self.rng.choice(tuple(self.cloud.hosts))
        used = any(name in (row.source, row.destination) for row in self.cloud.migrations.values())
        used = used or any(name in process.hosts for process in self.cloud._processes)
        if used or len(self.cloud.hosts) < len(HOSTS):
            return
        self.cloud.delete_service(name)

        def back() -> None:
            if name not in self.cloud.hosts:
                self.cloud.add_host(name, emit=True)

        self._at(self.rng.uniform(1, 60), back)

    def _silence_cell(self) -> None:
        """The database of all these hosts does not answer for a while: they are of one cell, as their moves show."""
        self.cloud.lose_cell(tuple(self.cloud.hosts))
        self.cloud.call_later(self.rng.uniform(1, 60), lambda: self.cloud.lose_cell(tuple(self.cloud.hosts), False))

    def _leave(self, server_id: str | None = None) -> None:
        server = self.cloud.servers.get(server_id) if server_id else self._any()
        if server is None:
            return
        ways = (self._live, self._cold, self._shelve, self._delete)
        for way in self.rng.choices(ways, (5, 3, 1, 2), k=3):
            try:
                way(server.id)
            except Refused:
                continue
            return

    def _sweep(self) -> None:
        """Whoever drains looks at what is left on closed hosts, and tries again."""
        for server in list(self.cloud.servers.values()):
            host = self.cloud.hosts.get(server.host or "")
            if host is None or not (host.disabled or host.forced_down) or self.rng.random() < 0.2:
                continue
            act = self._leave if self.cloud.is_up(host) else self._evacuate
            self._at(self.rng.uniform(0, 5), act, server.id)
        for row in list(self.cloud.migrations.values()):
            if row.status == "finished" and self.rng.random() < 0.8:
                self._at(self.rng.uniform(0, 5), self._settle_resize, row.server.id)

    def _refill(self) -> None:
        """Somebody forces a server onto a closed host on which nothing is any more."""
        empty = [
            h.name
            for h in self.cloud.hosts.values()
            if (h.disabled or h.forced_down) and h.killed_at is None and not h.provider.allocations
        ]
        server = self._any([i for h in self.cloud.hosts.values() if h.name not in empty for i in h.servers])
        if empty and server is not None:
            self.cloud.live_migrate(server.id, self.rng.choice(empty), force=True)

    def _strange(self, chance: float) -> bool:
        return self.strange and self.rng.random() < chance

    def _live(self, server_id: str) -> None:
        rng, cloud = self.rng, self.cloud
        cloud.knobs.set("pre_live_migration", server=server_id, seconds=rng.choice((0.0, 3.0)), fail=self._strange(0.1))
        cloud.knobs.set("post_at_destination", server=server_id, fail=self._strange(0.12))
        mode = rng.choice(("fail", "error", "stuck", "silent", "diverge")) if self._strange(0.35) else "converge"
        cloud.knobs.set("live_migration", server=server_id, mode=mode, seconds=rng.choice((0.6, 2.0, 10.0)))
        cloud.knobs.set("check", server=server_id, fail=self._strange(0.1))
        source = cloud.find_server(server_id).host
        others = [h.name for h in cloud.hosts.values() if h.name != source and h.killed_at is None]
        forced = bool(others) and rng.random() < 0.15  # as before 2.68: nobody asks whether that host is closed
        cloud.live_migrate(server_id, rng.choice(others) if forced else None, force=forced)
        if mode in ("stuck", "silent", "diverge") or self._strange(0.3):
            for _ in range(2):
                self._at(rng.uniform(0.1, 25), self._meddle, server_id)
        if rng.random() < 0.3:  # whoever drains tries again
            self._at(rng.uniform(15, 50), self._live, server_id)

    def _meddle(self, server_id: str | None = None) -> None:
        """Abort or force a live migration, or let it go at last."""
        rng = self.rng
        rows = [
            row
            for row in self.cloud.migrations.values()
            if row.kind == "live-migration"
            and row.status in ("queued", "preparing", "running")
            and server_id in (None, row.server.id)
        ]
        if not rows:
            return
        row = rng.choice(rows)
        how = rng.choice(("abort", "abort", "force", "free", "restart"))
        if how == "abort":
            self.cloud.abort(row.server.id, row.id)
        elif how == "force":
            self.cloud.force_complete(row.server.id, row.id)
        elif how == "free":
            self.cloud.knobs.set("live_migration", server=row.server.id, mode="converge", seconds=1.0)
        elif row.source in self.cloud.hosts:
            self.cloud.kill_compute(row.source)
            self._at(rng.uniform(0.5, 20), self._start, row.source)

    def _cold(self, server_id: str) -> None:
        rng, cloud = self.rng, self.cloud
        cloud.knobs.set("migrate_disk", server=server_id, seconds=rng.choice((0.0, 5.0)), fail=self._strange(0.1))
        cloud.knobs.set("finish_migration", server=server_id, seconds=rng.choice((0.0, 2.0)), fail=self._strange(0.1))
        server = cloud.find_server(server_id)
        flavor = rng.choice((None, None, "m1.medium", "m1.tiny"))
        stays = flavor is not None and rng.random() < 0.3
        between_cells = not stays and rng.random() < 0.08
        cloud.migrate(server_id, server.host if stays else None, flavor=flavor, cross_cell=between_cells)
        for _ in range(rng.choice((0, 1, 1, 2))):
            self._at(rng.uniform(3, 60), self._settle_resize, server_id)

    def _resize_here(self, host: str) -> None:
        server = self._any(list(self.cloud.find_host(host).servers))
        if server is not None:
            self.cloud.migrate(server.id, host, flavor=self.rng.choice(("m1.medium", "m1.tiny")))
            self._at(self.rng.uniform(3, 60), self._settle_resize, server.id)

    def _settle_resize(self, server_id: str | None = None) -> None:
        rng = self.rng
        waiting = [s for s in self.cloud.servers.values() if s.state == "resized" and server_id in (None, s.id)]
        if not waiting:
            return
        server = rng.choice(waiting)
        how = rng.choices(("confirm", "confirm by itself", "revert", "delete", "leave"), (5, 2, 4, 2, 1))[0]
        if how.startswith("confirm"):
            self.cloud.confirm(server.id, self.cloud.new_request(periodic=how != "confirm"))
        elif how == "revert":
            self.cloud.revert(server.id)
            source = self.cloud.migrations_of[server.id][-1].source
            if source is not None and self._strange(0.2):  # it dies before it has taken the server back, perhaps
                self._at(rng.uniform(0, 3) * self.timing.rpc_s, self.cloud.kill_compute, source)
        elif how == "delete":
            self._delete(server.id)

    def _evacuate(self, server_id: str | None = None) -> None:
        rng = self.rng
        if server_id is None:
            down = [i for h in self.cloud.hosts.values() if not self.cloud.is_up(h) for i in h.servers]
            server = self._any(down)
            if server is None:
                return
            server_id = server.id
        self.cloud.knobs.set("spawn", server=server_id, seconds=rng.choice((0.0, 1.0, 10.0)), fail=self._strange(0.2))
        self.cloud.evacuate(server_id, ends_stopped=rng.random() < 0.5)
        if rng.random() < 0.25:
            self._at(rng.uniform(2, 60), self._delete, server_id)

    def _shelve(self, server_id: str) -> None:
        self.cloud.shelve(server_id)
        if self.rng.random() < 0.4:
            self._at(self.rng.uniform(2, 60), self._unshelve, server_id)

    def _unshelve(self, server_id: str | None = None) -> None:
        shelved = [
            s.id for s in self.cloud.servers.values() if s.state.startswith("shelved") and server_id in (None, s.id)
        ]
        if not shelved:
            return
        chosen = self.rng.choice(shelved)
        if self.cloud.servers[chosen].state == "shelved" and self.rng.random() < 0.5:
            self.cloud.shelve_offload(chosen)
            return
        self.cloud.knobs.set("spawn", server=chosen, seconds=self.rng.choice((0.0, 5.0, 30.0)))
        self.cloud.unshelve(chosen)

    def _restore(self) -> None:
        soft = [s.id for s in self.cloud.servers.values() if s.state == "soft-delete"]
        if soft:
            self.cloud.restore(self.rng.choice(soft))

    def _delete(self, server_id: str | None = None) -> None:
        server = self.cloud.servers.get(server_id) if server_id else self._any()
        if server is not None:
            self.cloud.delete(server.id, force=self.rng.random() < 0.35)

    def _reset(self) -> None:
        """An operator takes a server that something went wrong with for what it should be."""
        stuck = [s for s in self.cloud.servers.values() if s.task_state is not None or s.state == "error"]
        if stuck:
            server = self.rng.choice(stuck)
            if server.state != "resized" and server.host is not None:
                self.cloud.reset_state(server.id, self.rng.choice(("active", "error")))

    def _power(self) -> None:
        server = self._any()
        if server is not None:
            (self.cloud.stop_server if server.state == "active" else self.cloud.start_server)(server.id)
