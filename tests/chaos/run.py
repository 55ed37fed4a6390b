"""One run: begin, let the story and the trouble go on, calm down, judge."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.chaos import judge
from tests.chaos.story import People, touched
from tests.chaos.trouble import Plan, Trouble
from tests.chaos.world import World
from tests.daemon.world import Event
from tests.receivers.managing import State

SLACK_S = 5.0
"""How late something may be told of a server that is elsewhere by then."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run: counts of what broke, what people did and what was told; and every fault."""

    seed: int
    broke: Counter[str]
    did: Counter[str]
    told: Counter[str]
    moved: int
    took_s: float
    calm_s: float
    restarts_s: list[float]
    wrong: list[str]


class Follower:
    """Reads project B's log by its cursor all along, over every death of maintd."""

    def __init__(self, world: World) -> None:
        self._owner = world.people["b"]
        self._over = threading.Event()
        self.events: list[Event] = []
        self._after = "0"
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self.read(wait_s=5)
            except (OSError, ValueError, HTTPException):
                self._over.wait(0.5)  # maintd is dead, or died in mid-answer

    def read(self, wait_s: int = 0) -> None:
        status, answer = self._owner.ask("GET", f"/v1/events?after={self._after}&wait={wait_s}&limit=100")
        if status == 200:
            self.events += answer["events"]
            self._after = answer["next"]

    def stop(self) -> None:
        self._over.set()
        self._thread.join(40.0)


def run(
    seed: int, folder: Path, plan: Plan, *, calm_s: float = 900.0, say: Callable[[str], None] = lambda text: None
) -> Result:
    """Live through it once. `calm_s`: how long it may take until everything is told, afterwards."""
    began = time.monotonic()
    world = World(folder, seed=seed)
    try:
        world.begin()
        follower, people, trouble = Follower(world), People(world), Trouble(world, plan)
        people.start()
        trouble.start()
        chance, spoken = random.Random(f"{seed} maintd"), time.monotonic()
        for number in range(1, plan.kills + 1):
            trouble.kill_maintd(chance)
            if number == plan.kills - 1 or plan.kills == 1:
                people.stop()
                people.last_scene()
            if time.monotonic() - spoken >= 60.0:
                spoken = time.monotonic()
                say(f"seed {seed}, {spoken - began:.0f} s: {told(trouble.did)}; {told(people.did)}")
        trouble.stop()
        calm = time.monotonic()
        say(f"seed {seed}, {calm - began:.0f} s: the last kill; it calms down")
        wrong = people.wrong + trouble.wrong
        wrong += _calmed(world, calm + calm_s)
        follower.stop()
        follower.read()
        calm_took_s = time.monotonic() - calm
        wrong += judged(world, follower)
        logs = {name: world.logged(owner) for name, owner in _readers(world).items()}
        if world.maintd.status() is not None or world.maintd.end(signal.SIGTERM) != 0:
            wrong.append(f"maintd did not end cleanly: {world.maintd.log.read_text()[-1500:]}")
    finally:
        world.close()
    wrong += sorted({f"maintd logged a traceback: {line}" for line in _tracebacks(world.maintd.log)})
    counts: Counter[str] = Counter()
    for name, receiver in world.receivers.items():
        arrivals = receiver.arrivals()
        counts[f"events of {name}"] = len(logs[name])
        counts["requests"] += len(arrivals)
        counts["repeats"] += len(arrivals) - len({arrival.event["id"] for arrival in arrivals})
    moved = sum(said == "end" for said, _, _ in world.calls())
    took_s = time.monotonic() - began
    return Result(seed, trouble.did, people.did, counts, moved, took_s, calm_took_s, trouble.restarts_s, wrong)


def told(counts: Counter[str]) -> str:
    """Counts as words."""
    return ", ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def _readers(world: World) -> dict[str, Any]:
    return {"operator": world.admin, **world.people}


def listed(world: World, name: str) -> dict[str, State]:
    """What the API lists of a project's servers."""
    status, answer = world.people[name].ask("GET", "/v1/servers/maintenance?limit=1000")
    assert status == 200, answer
    return {state["server_id"]: state for state in answer["servers"]}


def _calmed(world: World, deadline: float) -> list[str]:
    """Wait until there is nothing left to tell: the state is right, everything was taken, the role rests."""
    left = ["maintd does not come up"]
    while time.monotonic() < deadline:
        if world.ready():
            left = _unfinished(world)
            if not left:
                return []
        time.sleep(0.5)
    return [f"it never calmed down: {why}" for why in left]


def _unfinished(world: World) -> list[str]:
    left: list[str] = []
    for name, owner in _readers(world).items():
        taken = world.receivers[name].taken()
        left += [f"{name}: not taken: {e['type']} {e['id']}" for e in world.logged(owner) if e["id"] not in taken]
    for name, user in world.users.items():
        log = world.logged(world.people[name])
        left += judge.state_is_right(name, listed(world, name), log, touched(world.cloud, user.project_id))
    left += judge.role_is_right(world.pair, world.calls(), listed(world, "a"))
    return left


def judged(world: World, follower: Follower) -> list[str]:
    """Every fault, as a sentence."""
    wrong: list[str] = []
    logs = {name: world.logged(owner) for name, owner in _readers(world).items()}
    for name, receiver in world.receivers.items():
        wrong += [f"{name}: a signature was not accepted: {why}" for why in receiver.refused]
        wrong += judge.arrived(name, logs[name], receiver.arrivals())
    wrong += judge.operators_told_once(logs["operator"])
    if follower.events != logs["b"]:
        wrong.append(f"b: {len(follower.events)} events were read by cursor, and the log has {len(logs['b'])} others")
    history = world.history
    most = {
        "server.maintenance_started": {s: history.meetings(s, history.closed, SLACK_S) for s in history.stays},
        "server.host_lost": {s: history.meetings(s, history.lost, SLACK_S) for s in history.stays},
        # A resize that is taken back is on its way twice.
        "server.moving": Counter(
            row.server.id
            for row in world.history.moves.values()
            for _ in range(2 if row.status in ("reverting", "reverted") else 1)
        ),
    }
    for name, user in world.users.items():
        log = logs[name]
        wrong += judge.numbered(name, log)
        wrong += judge.told_once(name, log)
        wrong += judge.no_more_than_was(name, log, most)
        wrong += judge.state_is_right(name, listed(world, name), log, touched(world.cloud, user.project_id))
    wrong += judge.role_is_right(world.pair, world.calls(), listed(world, "a"))
    return wrong


def _tracebacks(log: Path) -> list[str]:
    """The lines of a log that carry a traceback, each by what it was about."""
    return [line[:600] for line in log.read_text(errors="replace").splitlines() if "Traceback" in line]
