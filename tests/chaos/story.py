"""What people do: two operators who drain and lose hosts, owners who resize, make and delete servers.

Each is a thread that does one thing after another until told that it is enough. What Nova refuses is shrugged off, as
people do, and what does not come about in time is left as it is. At the end `last_scene` leaves the cloud in a state
that is worth telling: a host is being emptied, another is lost, a server is on its way.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from maintd.simulator import Cloud, Refused
from maintd.simulator.model import Server
from maintd.simulator.notifications import Request
from tests.chaos.world import HOSTS, World
from tests.support.rabbitmq import wait_until

STEP_S = 0.05


@dataclass(frozen=True, slots=True)
class Scene:
    """How the cloud was left: the host that is being emptied, the one that is lost, the server on its way, and on
    which server of the pair nothing weighs."""

    emptied: str
    lost: str
    moving: str
    spared: str


class People:
    """All of them. `did` counts what was done, `wrong` is what went wrong with themselves."""

    def __init__(self, world: World) -> None:
        self.world, self.cloud = world, world.cloud
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._enough = threading.Event()
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        hands: tuple[Callable[[random.Random], None], ...] = (self._operate, self._operate, self._own)
        self._threads = [
            threading.Thread(target=self._live, args=(hand, random.Random(f"{world.seed} {number}")), daemon=True)
            for number, hand in enumerate(hands)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let everybody finish what they are at."""
        self._enough.set()
        for thread in self._threads:
            thread.join(60.0)
            if thread.is_alive():
                self.wrong.append("somebody of the story does not come to an end")

    def _live(self, hand: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while not self._enough.is_set():
                hand(chance)
                self._enough.wait(chance.uniform(0.2, 1.5))
        except BaseException as wrong:
            self.wrong.append(f"the story broke: {type(wrong).__name__}: {wrong}")

    def _until(self, true: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came about in time."""
        deadline = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > deadline:
                return False
            time.sleep(STEP_S)
        return True

    # operators

    def _operate(self, chance: random.Random) -> None:
        with self._lock:
            free = sorted(set(HOSTS) - self._busy)
            host = chance.choice(free)
            if len(self._busy) >= 2:
                return
            self._busy.add(host)
        try:
            (self._lose if chance.random() < 0.3 else self._drain)(host, chance)
        finally:
            with self._lock:
                self._busy.discard(host)

    def _drain(self, host: str, chance: random.Random) -> None:
        cloud = self.cloud
        reason = chance.choice(("maintenance: memory", "drain", "maintenance", "retire: old", "a look at it"))
        cloud.disable(host, reason)
        self.did["drains"] += 1
        patience = time.monotonic() + chance.choice((3.0, 12.0, 20.0))
        while here := list(cloud.find_host(host).servers.values()):
            if time.monotonic() > patience:
                break  # the operator has thought better of it
            for server in here:
                self._move(server, chance)
            self._until(lambda: not self._moves(host), 3.0)
        self._enough.wait(chance.choice((0.0, 1.0, 3.0)))
        cloud.enable(host)

    def _moves(self, host: str) -> bool:
        with self.cloud.lock:
            return any(server.task_state is not None for server in self.cloud.find_host(host).servers.values())

    def _move(self, server: Server, chance: random.Random) -> None:
        cloud, way = self.cloud, chance.random()
        with suppress(Refused):
            mode = "fail" if chance.random() < 0.2 else "converge"
            cloud.knobs.set(
                "live_migration", server=server.id, mode=mode, seconds=chance.uniform(0.1, 2.5), report_s=0.3
            )
            if server.state == "resized":
                cloud.confirm(server.id)
            elif way < 0.75:
                cloud.live_migrate(server.id)
                self.did["live migrations"] += 1
                if mode == "converge" and chance.random() < 0.1:
                    self._abort(server)
            else:
                cloud.migrate(server.id)
                self.did["cold migrations"] += 1

    def _abort(self, server: Server) -> None:
        if self._until(lambda: self._newest(server.id, "preparing", "running"), 1.0):
            with suppress(Refused):
                self.cloud.abort(server.id, self.cloud.migrations_of[server.id][-1].id)
                self.did["aborts"] += 1

    def _newest(self, server_id: str, *statuses: str) -> bool:
        """Whether the newest move of a server has one of these."""
        rows = self.cloud.migrations_of.get(server_id)
        return bool(rows) and rows[-1].status in statuses

    def _lose(self, host: str, chance: random.Random) -> None:
        cloud = self.cloud
        cloud.set_service(host, forced_down=True)
        self.did["hosts forced down"] += 1
        self._enough.wait(chance.uniform(0.1, 3.0))
        if chance.random() < 0.5:
            for server in list(cloud.find_host(host).servers.values()):
                with suppress(Refused):
                    cloud.evacuate(server.id, ends_stopped=False)
                    self.did["evacuations"] += 1
            self._until(lambda: not self._moves(host), 5.0)
        self._enough.wait(chance.uniform(0.0, 2.0))
        self._lift(host)

    def _lift(self, host: str) -> None:
        def lifted() -> bool:
            self.cloud.start_compute(host)
            with suppress(Refused):
                self.cloud.set_service(host, forced_down=False)
                return True
            return False

        if not self._until(lifted, 20.0):
            self.wrong.append(f"{host} could not be brought back")

    # owners

    def _request(self, name: str) -> Request:
        user = self.world.users[name]
        return Request(f"req-{self.cloud.new_uuid()}", user.id, user.project_id)

    def _own(self, chance: random.Random) -> None:
        cloud = self.cloud
        owner = chance.choice(sorted(self.world.users))
        project = self.world.users[owner].project_id
        mine = [server for server in list(cloud.servers.values()) if server.project_id == project]
        if owner == "b" and chance.random() < 0.3:
            self._come_and_go(owner, mine, chance)
            return
        server = chance.choice(mine)
        request = self._request(owner)
        with suppress(Refused):
            flavor = "m1.small" if server.flavor.name != "m1.small" else "m1.medium"
            cloud.migrate(server.id, flavor=flavor, request=request)
            self.did["resizes"] += 1
            if self._until(lambda: server.state == "resized" and server.task_state is None, 5.0):
                self._enough.wait(chance.uniform(0.0, 3.0))
                (cloud.confirm if chance.random() < 0.7 else cloud.revert)(server.id, self._request(owner))

    def _come_and_go(self, owner: str, mine: list[Server], chance: random.Random) -> None:
        extra = [server for server in mine if server.name.startswith("b-extra")]
        with suppress(Refused):
            if len(extra) < 2:
                self.cloud.create(f"b-extra-{self.did['servers made']}", request=self._request(owner))
                self.did["servers made"] += 1
            else:
                self.cloud.delete(chance.choice(extra).id, request=self._request(owner))
                self.did["servers deleted"] += 1

    # the end

    def last_scene(self) -> Scene:
        """Finish what hangs, then leave one host being emptied under a server of the pair, one lost, one on its way."""
        cloud, world = self.cloud, self.world
        for host in HOSTS:
            self._lift(host)
            cloud.enable(host)
        wait_until(self._settled, 60.0, "every server to be active and at rest")
        chance = random.Random(f"{world.seed} last")
        touched, spared = chance.sample(world.pair, 2)
        while cloud.servers[touched].host == cloud.servers[spared].host:
            self._carry(touched)
        emptied, kept = cloud.servers[touched].host or "", cloud.servers[spared].host or ""
        lost = chance.choice([host for host in HOSTS if host not in (emptied, kept)])
        if not cloud.find_host(lost).servers:
            self._carry(world.servers["b-db"], lost)
        moving = next(
            (
                s.id
                for s in cloud.servers.values()
                if s.host not in (emptied, lost) and s.id != spared and s.state == "active"
            ),
            None,
        )
        if moving is None:
            moving = world.servers["a-web"]
            self._carry(moving, kept)
        cloud.disable(emptied, "maintenance: the last")
        # Disabled as well, with a reason that says what it is: without one it is a drain only where something has left
        # it, and of what left shortly before it is not known, after an outage, whether that was before.
        cloud.set_service(lost, disabled=True, reason="maintenance: it is dead", forced_down=True)
        cloud.knobs.set("live_migration", server=moving, mode="converge", seconds=36000.0, report_s=1.0)
        cloud.live_migrate(moving)
        wait_until(lambda: self._newest(moving, "running"), 20.0, "the last move to run")
        return Scene(emptied, lost, moving, spared)

    def _settled(self) -> bool:
        at_rest = True
        for server in list(self.cloud.servers.values()):
            if server.state == "resized" and server.task_state is None:
                with suppress(Refused):
                    self.cloud.confirm(server.id)
            at_rest = at_rest and server.state in ("active", "error") and server.task_state is None
        return at_rest

    def _carry(self, server_id: str, host: str | None = None) -> None:
        """Move a server, and wait until it is there."""
        cloud, server = self.cloud, self.cloud.servers[server_id]
        cloud.knobs.set("live_migration", server=server_id, mode="converge", seconds=0.1)
        before = server.host
        if before == host:
            return
        cloud.live_migrate(server_id, host)
        wait_until(lambda: server.task_state is None and server.host != before, 20.0, f"{server.name} to move")


def touched(cloud: Cloud, project_id: str) -> dict[str, tuple[object, ...]]:
    """The truth of what touches the servers of a project: (being emptied, kind of the move, forced down)."""
    found: dict[str, tuple[object, ...]] = {}
    with cloud.lock:
        for server in cloud.servers.values():
            host = cloud.hosts.get(server.host or "")
            if server.project_id != project_id or host is None:
                continue
            row = next(iter(reversed(cloud.migrations_of.get(server.id, []))), None)
            state = (
                host.disabled,
                row.kind if row is not None and row.status == "running" else None,
                host.forced_down,
            )
            if any(state):
                found[server.id] = state
    return found
