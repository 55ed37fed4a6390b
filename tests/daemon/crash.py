"""The crash test: a daemon is killed again and again in mid-drain, and what the receiver got is held to the truth.

Two pairs of hosts are drained to and fro at the same time, without end: close, live-migrate away, wait for the proof,
open, wait for the end of the drain, then the other way round. Meanwhile the daemon dies, by SIGKILL from inside at the
nth passing of a named point or from outside at a random moment, and is started again at once. When all deaths have been
died, the drains under way are finished, and the daemon is left alone until it has delivered everything.

What had to come follows from what the operators did to the simulated cloud, and is compared with what a daemon that was
never killed says about the same drains. Nothing may be missing, nothing may be said twice under different ids, no proof
may come early, each host's story must be told in a sensible order. The same event may arrive more than once.

    python -m tests.daemon.crash --random 50 [--points 3] [--seed 1]
"""

from __future__ import annotations

import argparse
import random
import re
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maintd.store import open_store
from tests.daemon.processes import Child, Nursery
from tests.daemon.runner import POINTS
from tests.daemon.world import Event, World, kind_of
from tests.support.rabbitmq import Rabbit, wait_until

PAIRS = (("cmp-01", "cmp-02"), ("cmp-03", "cmp-04"))
SERVERS = 2
STORY = re.compile(
    r"(service\.disabled drain\.started (host\.emptied host\.occupied )*host\.emptied "
    r"(service\.enabled host\.reopened|host\.reopened service\.enabled) drain\.ended )*"
)
"""A host's events in order of their sequence: drains, each from the closing to the opening, and nothing else."""

Named = tuple[str, int]
"""A named point, and at which of its passings."""


def named_deaths(passings: Iterable[int], seed: int) -> list[Named]:
    """Every named point at each of these passings, in a random order."""
    deaths = [(point, nth) for nth in passings for point in POINTS]
    random.Random(seed).shuffle(deaths)
    return deaths


@dataclass(slots=True)
class Lives:
    """A daemon that is started again whenever it dies, on a thread of its own."""

    nursery: Nursery
    world: World
    named: Sequence[Named]
    moments: Sequence[float]
    """How long it may live (seconds from the order to fork) before it is killed from outside."""
    died: Counter[str] = field(default_factory=Counter)
    restarts_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    last: Child | None = None
    done: threading.Event = field(default_factory=threading.Event)
    """All deaths have been died; the last daemon lives on."""
    _thread: threading.Thread | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self, first: Child) -> None:
        self.last = first
        self._thread = threading.Thread(target=self._run, args=(first,), name="lives", daemon=True)
        self._thread.start()

    def _run(self, first: Child) -> None:
        try:
            first.kill()
            plan: list[Named | float] = [*self.named, *self.moments]
            random.Random(len(plan)).shuffle(plan)
            for death in plan:
                if self._over.is_set():
                    return
                self._live(death)
            self.last = self.nursery.spawn(self.world.config)
            self.done.set()
        except BaseException as wrong:
            self.wrong.append(f"{type(wrong).__name__}: {wrong}")
            self.done.set()

    def _live(self, death: Named | float) -> None:
        began = time.monotonic()
        if isinstance(death, float):
            child = self.last = self.nursery.spawn(self.world.config)
            child.ended.wait(death)
            child.kill()
            self.died["at a random moment"] += 1
        else:
            child = self.last = self.nursery.spawn(self.world.config, crash=death)
            while not child.ended.wait(0.2):
                if self._over.is_set():
                    child.kill()
                    return
            self.died[death[0]] += 1
        if child.started.is_set():
            self.restarts_s.append(time.monotonic() - began)
        if child.status != -9:
            self.wrong.append(f"a daemon ended by itself, with {child.status}: {child.tail(500)}")

    def stop(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(20.0)
        if self.last is not None and self.last.status is None:
            self.last.stop()


@dataclass(slots=True)
class Drains:
    """Operators who drain a pair of hosts to and fro until told that it is enough, each on a thread of their own."""

    world: World
    enough: threading.Event
    at_least: int
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys((h for p in PAIRS for h in p), 0))
    moved: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(server, source, destination): how often."""
    wrong: list[str] = field(default_factory=list)
    deadline: float = 0.0
    limit: dict[str, int] | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for pair in PAIRS:
            thread = threading.Thread(target=self._pair, args=(pair,), name=f"drains-{pair[0]}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(max(1.0, self.deadline - time.monotonic()))

    def _pair(self, pair: tuple[str, str]) -> None:
        source, destination = pair
        try:
            while not self._over(source):
                self._drain(source, destination)
                source, destination = destination, source
        except BaseException as wrong:
            self.wrong.append(f"{source}: {wrong}")

    def _over(self, source: str) -> bool:
        if self.limit is not None:
            return self.done[source] >= self.limit[source]
        return self.enough.is_set() and self.done[source] >= self.at_least

    def _drain(self, source: str, destination: str) -> None:
        world, number = self.world, self.done[source] + 1
        world.close_host(source, f"maintenance {number}")
        for server_id in world.move_away(source, destination):
            self.moved[(server_id, source, destination)] += 1
        left_s = self.deadline - time.monotonic()
        world.wait_empty(source, max(1.0, left_s))
        world.receiver.wait_for("host.emptied", source, number, max(1.0, self.deadline - time.monotonic()))
        world.cloud.enable(source)
        world.receiver.wait_for("drain.ended", source, number, max(1.0, self.deadline - time.monotonic()))
        self.done[source] = number


@dataclass(slots=True)
class Result:
    """What came of one run."""

    drains: dict[str, int]
    moves: int
    died: Counter[str]
    restarts_s: list[float]
    events: int
    repeats: int
    took_s: float
    told: Counter[tuple[str, str, str, str]]
    wrong: list[str]


def is_gap(event: Event) -> bool:
    """Whether it tells of a time in which nobody watched: each death makes one, and none has to be told twice."""
    return kind_of(event) in ("bus.blinded", "bus.healed")


def cause_of(event: Event) -> tuple[str, str, str, str]:
    """What an event is about, the same in every run; a gap in what was watched, by when it began."""
    data = event["data"]
    if is_gap(event):
        return (kind_of(event), event["subject"], str(data["blind_from"]), "")
    return (
        kind_of(event),
        event["subject"],
        str(data.get("server_id") or ""),
        str(data.get("destination") or ""),
    )


def run(
    rabbit: Rabbit,
    nursery: Nursery,
    folder: Path,
    *,
    name: str,
    named: Sequence[Named] = (),
    moments: Sequence[float] = (),
    at_least: int = 1,
    limit: dict[str, int] | None = None,
    timeout_s: float = 120.0,
    seed: int = 1,
) -> Result:
    """Drain and die, then compare. `limit`: how often each host is drained, in a run that nobody is killed in."""
    began = time.monotonic()
    world = World(
        folder, name, broker_url=rabbit.url, servers={pair[0]: SERVERS for pair in PAIRS}, settle_s=1.0, seed=seed
    )
    lives = Lives(nursery, world, named, moments)
    drains = Drains(world, lives.done, at_least, deadline=time.monotonic() + timeout_s, limit=limit)
    try:
        first = nursery.spawn(world.config).wait_connected()
        drains.start()
        if named or moments:
            lives.start(first)
        else:
            lives.last = first
            lives.done.set()
        drains.wait()
        wrong = drains.wrong + lives.wrong
        if not lives.done.is_set():
            wrong.append(f"not all deaths were died in time: {dict(lives.died)} of {len(named) + len(moments)}")
        if not wrong:
            wrong += _wait_delivered(world) + _wait_handled(world)
    finally:
        try:
            lives.stop()
        finally:
            world.close()
    wrong += faults(world, drains)
    events = world.receiver.events()
    return Result(
        drains=dict(drains.done),
        moves=sum(drains.moved.values()),
        died=lives.died,
        restarts_s=lives.restarts_s,
        events=len(events),
        repeats=len(world.receiver.receipts) - len(events),
        took_s=time.monotonic() - began,
        told=Counter(cause_of(event) for event in events if not is_gap(event)),
        wrong=wrong,
    )


def committed(world: World) -> dict[str, str]:
    """The events in the store: type by id."""
    connection = sqlite3.connect(f"file:{world.folder / 'maintd.sqlite'}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT id, type FROM events"))
    finally:
        connection.close()


def _wait_delivered(world: World) -> list[str]:
    """Until everything committed has come; what has not after a while."""

    def missing() -> set[str]:
        return set(committed(world)) - {event["id"] for event in world.receiver.events()}

    try:
        wait_until(lambda: not missing(), 20.0)
    except AssertionError:
        kept = committed(world)
        return [f"committed and never delivered: {kept[event_id]} {event_id}" for event_id in missing()]
    return []


def _wait_handled(world: World) -> list[str]:
    """Until every notification that was sent is known in the store; what is not after a while.

    What a lost notification would have said the daemon may have learned from the API, so its loss shows only here.
    """
    store = open_store(world.database, world.clock)
    try:
        wait_until(lambda: store.seen(world.sent) == set(world.sent), 20.0)
    except AssertionError:
        lost = set(world.sent) - store.seen(world.sent)
        return [f"sent and never handled: {len(lost)} of {len(world.sent)} notifications"]
    finally:
        store.close()
    return []


def faults(world: World, drains: Drains) -> list[str]:
    """Everything that came out otherwise than it had to, as sentences."""
    receiver, truth = world.receiver, world.truth
    events = receiver.events()
    wrong = [f"a signature was not accepted: {why}" for why in receiver.refused]

    # Nothing missing, nothing twice under another id.
    due: Counter[tuple[str, str, str, str]] = Counter()
    for host, times in drains.done.items():
        for kind in ("service.disabled", "drain.started", "host.emptied", "service.enabled", "drain.ended"):
            due[(kind, host, "", "")] = times
        due[("host.reopened", host, "", "")] = times
    for (server_id, source, destination), times in drains.moved.items():
        for kind in ("migration.started", "migration.completed"):
            due[(kind, source, server_id, destination)] = times
    came = Counter(map(cause_of, events))
    due |= {cause_of(event): 1 for event in events if is_gap(event)}
    for cause in sorted(due.keys() | came.keys()):
        if came[cause] < due[cause]:
            wrong.append(f"missing: {' '.join(cause)} came {came[cause]} times instead of {due[cause]}")
        elif came[cause] > due[cause]:
            ids = [event["id"] for event in events if cause_of(event) == cause]
            wrong.append(f"under a second id: {' '.join(cause)} came {came[cause]} times, not {due[cause]}: {ids}")
    causes: dict[tuple[str, ...], str] = {}
    for event in events:
        data, message_id = event["data"], event["data"]["because"]["message_id"]
        one = (*cause_of(event), str(data.get("migration_key") or data.get("drain_id") or ""), str(message_id))
        if causes.setdefault(one, event["id"]) != event["id"] and (message_id or data.get("migration_key")):
            wrong.append(f"one cause, two ids: {' '.join(one)}: {causes[one]} and {event['id']}")

    # What was said had been committed, and says the same whenever it comes.
    kept = committed(world)
    wrong += [f"delivered and not in the store: {kind_of(e)} {e['id']}" for e in events if e["id"] not in kept]
    first: dict[str, Event] = {}
    for receipt in receiver.receipts:
        if first.setdefault(receipt.event["id"], receipt.event) != receipt.event:
            wrong.append(f"{receipt.event['id']} came with two different bodies")

    # No proof came early: empty when it was decided, and for settle_s before; empty when it came.
    told: set[str] = set()
    for receipt in receiver.receipts:
        event = receipt.event
        if kind_of(event) != "host.emptied" or event["id"] in told:
            continue
        told.add(event["id"])
        host, decided_at = event["subject"], _seconds(event["time"])
        since = truth.empty_since(host, decided_at)
        if since is None:
            wrong.append(f"false proof: {host} was not empty at {event['time']}")
        elif decided_at - since < world.settle_s - 0.05:
            wrong.append(f"early proof: {host} had been empty for {decided_at - since:.3f} s only")
        if receipt.left:
            wrong.append(f"false proof: on {host} there was {sorted(receipt.left)} when it came")

    # Order: per subject by sequence as they first came, and a story that makes sense.
    for subject in drains.done:
        mine = [event for event in events if event["subject"] == subject]
        sequences = [event["sequence"] for event in mine]
        if sequences != sorted(sequences):
            wrong.append(f"{subject}: the events came out of order: {sequences}")
        if len(set(sequences)) != len(sequences):
            wrong.append(f"{subject}: one sequence for two events: {sequences}")
        told_of = [kind_of(event) for event in mine if not kind_of(event).startswith("migration.")]
        if not STORY.fullmatch("".join(f"{kind} " for kind in told_of)):
            wrong.append(f"{subject}: no story: {' '.join(told_of)}")
        for server_id in {event["data"]["server_id"] for event in mine if event["data"].get("server_id")}:
            moves = [kind_of(e) for e in mine if e["data"].get("server_id") == server_id]
            if moves != ["migration.started", "migration.completed"] * (len(moves) // 2):
                wrong.append(f"{subject}, {server_id}: no story: {' '.join(moves)}")
    return wrong


def _seconds(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


def moments(count: int, seed: int) -> list[float]:
    """So many life times in seconds: some too short to get anywhere, some long enough to prove a host empty."""
    chance = random.Random(seed)
    return [chance.choice((0.3, 1.0, 2.5, 4.0)) * chance.uniform(0.1, 1.0) for _ in range(count)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run it at any length, and print what was killed where and what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=50, metavar="N", help="kill N times at random moments")
    parser.add_argument("--points", type=int, default=3, metavar="N", help="kill N times at each named point")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep databases and logs there")
    asked = parser.parse_args(argv)
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="maintd-crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    rabbit, nursery = Rabbit(folder / "rabbit"), Nursery(_made(folder / "nursery"))
    try:
        rabbit.start()
        chance = random.Random(asked.seed)
        named = [(point, chance.randint(1, 9)) for point in POINTS for _ in range(asked.points)]
        chance.shuffle(named)
        killed = run(
            rabbit,
            nursery,
            _made(folder / "killed"),
            name="killed",
            named=named,
            moments=moments(asked.random, asked.seed),
            timeout_s=120.0 + 15.0 * (len(named) + asked.random),
            seed=asked.seed,
        )
        spared = run(
            rabbit,
            nursery,
            _made(folder / "spared"),
            name="spared",
            limit=killed.drains,
            timeout_s=120.0 + 10.0 * sum(killed.drains.values()),
            seed=asked.seed,
        )
    finally:
        nursery.close()
        rabbit.close()
    for name, result in (("killed", killed), ("spared", spared)):
        print(
            f"{name}: {sum(result.drains.values())} drains, {result.moves} migrations, {result.events} events, "
            f"{result.repeats} repeats under the same id, {result.took_s:.0f} s"
        )
    print("killed " + ", ".join(f"{point} {killed.died[point]}" for point in (*POINTS, "at a random moment")))
    wrong = killed.wrong + [f"(never killed) {why}" for why in spared.wrong] + differences(killed, spared)
    for why in wrong:
        print(f"WRONG: {why}")
    print("nothing missing, no second id, no false proof" if not wrong else f"{len(wrong)} faults")
    return 1 if wrong else 0


def differences(killed: Result, spared: Result) -> list[str]:
    """Where the two tell different stories of the same drains."""
    return [
        f"killed {killed.told[cause]} times, spared {spared.told[cause]} times: {' '.join(cause)}"
        for cause in sorted(killed.told.keys() | spared.told.keys())
        if killed.told[cause] != spared.told[cause]
    ]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
