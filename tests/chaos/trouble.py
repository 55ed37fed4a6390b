"""What breaks: maintd, the broker, receivers and the HA manager, each at moments drawn from the seed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.receivers import Receiver
from tests.chaos.world import World


@dataclass(frozen=True, slots=True)
class Plan:
    """How much breaks, and how often (seconds between, at least and at most)."""

    kills: int
    lives_s: tuple[float, ...] = (2.0, 6.0, 12.0, 20.0)
    """The longest that maintd may live each time; it is killed after a part of it that is drawn."""
    broker_s: tuple[float, float] = (15.0, 50.0)
    receivers_s: tuple[float, float] = (12.0, 40.0)
    away_s: tuple[float, float] = (0.3, 4.0)
    manager_s: tuple[float, float] = (8.0, 30.0)


class Trouble:
    """All of it, on threads of their own; `did` counts."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world, self.plan = world, plan
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.restarts_s: list[float] = []
        """How long maintd took to serve, hear and have read the cloud, where it was let live that long."""
        self._over = threading.Event()
        hands: list[tuple[str, Callable[[random.Random], None]]] = [
            ("broker", self._break_broker),
            ("manager", self._break_manager),
            *((name, self._breaks(receiver)) for name, receiver in world.receivers.items()),
        ]
        self._threads = [
            threading.Thread(target=self._live, args=(hand, random.Random(f"{world.seed} {name}")), daemon=True)
            for name, hand in hands
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Break nothing more; what is broken is mended."""
        self._over.set()
        for thread in self._threads:
            thread.join(90.0)
            if thread.is_alive():
                self.wrong.append("some trouble does not come to an end")

    def _live(self, hand: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            while not self._over.is_set():
                hand(chance)
        except BaseException as wrong:
            self.wrong.append(f"a trouble failed: {type(wrong).__name__}: {wrong}")

    def kill_maintd(self, chance: random.Random) -> None:
        """Let it live for a while, kill it, start it again."""
        world, began = self.world, time.monotonic()
        dies = began + chance.choice(self.plan.lives_s) * chance.uniform(0.1, 1.0)
        ready = False
        while (now := time.monotonic()) < dies:
            if world.maintd.status() is not None:
                break
            if not ready and world.ready():
                ready = True
                self.restarts_s.append(now - began)
            time.sleep(min(0.1, max(0.0, dies - now)))
        self.end_maintd()
        world.maintd.start()

    def end_maintd(self) -> None:
        """Kill it; that it had ended before is a fault."""
        status = self.world.maintd.status()
        tail = "" if status is None else self.world.maintd.log.read_text()[-1500:]
        if status is not None:
            self.wrong.append(f"maintd ended by itself, with {status}: {tail}")
        self.world.maintd.end()
        self.did["maintd killed"] += 1

    def _break_broker(self, chance: random.Random) -> None:
        if self._over.wait(chance.uniform(*self.plan.broker_s)):
            return
        rabbit = self.world.broker.rabbit
        rabbit.kill()
        self._over.wait(chance.choice((0.0, 2.0, 6.0)))
        rabbit.start()
        self.did["RabbitMQ killed"] += 1

    def _break_manager(self, chance: random.Random) -> None:
        if self._over.wait(chance.uniform(*self.plan.manager_s)):
            return
        manager = self.world.manager
        status = manager.status()
        if status is not None:
            self.wrong.append(f"the HA manager ended by itself, with {status}: {manager.log.read_text()[-1500:]}")
        manager.end()
        self.did["HA manager killed"] += 1
        self._over.wait(chance.choice((0.0, 1.0, 4.0)))
        manager.start()

    def _breaks(self, receiver: Receiver) -> Callable[[random.Random], None]:
        def hand(chance: random.Random) -> None:
            if self._over.wait(chance.uniform(*self.plan.receivers_s)):
                return
            way = chance.choice(("away", "away", "refusing", "hanging"))
            if way == "away":
                receiver.close()
            else:
                receiver.mood = 500 if way == "refusing" else 0
            self._over.wait(chance.uniform(*self.plan.away_s))
            receiver.mood = 204
            receiver.close()
            receiver.open()
            self.did[f"receivers {way}"] += 1

        return hand
