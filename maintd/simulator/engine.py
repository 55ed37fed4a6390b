"""The event queue that the simulated cloud runs on, and the processes in it.

A process is a generator: it does a step and yields how many seconds later the next one is due, or `Slots` when it must
wait for its turn. Nothing here knows what a server is. With a `ManualClock`, `advance` runs what is due and moves the
clock along, and the same seed gives the same order; with the machine's clock, `start` does it on a thread.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable, Generator

from maintd.clock import Clock, ManualClock

Steps = Generator["float | Slots", None, None]


class CannotGoOn(Exception):
    """Raised by a step that finds nothing left to work on: its process ends there, and nothing that follows is done."""


class Slots:
    """So many may work at once; the others wait in the order they came."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy: set[Process] = set()
        self.waiting: deque[Process] = deque()


class Process:
    """One operation under way; `hosts` are those whose compute it depends on. `lost` is one that has asked something of
    a compute that will never answer."""

    __slots__ = ("steps", "server_id", "hosts", "dead", "lost", "slots", "waits_for")

    def __init__(self, steps: Steps, server_id: str, hosts: tuple[str, ...]) -> None:
        self.steps = steps
        self.server_id = server_id
        self.hosts = hosts
        self.dead = False
        self.lost = False
        self.slots: Slots | None = None
        self.waits_for: Slots | None = None


class Engine:
    """Runs the processes in the order of their times; of those due at one moment, in the order they were queued."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self._wake = threading.Condition(self.lock)
        self._queue: list[tuple[float, int, Process | Callable[[], None]]] = []
        self._order = 0
        self._at: float | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._processes: dict[Process, None] = {}  # a dict for its order: the same seed, the same bytes

    def now(self) -> float:
        """The time of the step that is running; between steps, the clock's."""
        return self.clock.now() if self._at is None else self._at

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something of the caller's own so many seconds from now, among Nova's steps."""
        with self.lock:
            self._push(self.now() + delay_s, action)

    def next_due(self) -> float | None:
        """When the next step is due; None when nothing is going on."""
        with self.lock:
            return self._queue[0][0] if self._queue else None

    def advance(self, to: float | None = None) -> int:
        """Run every step due until `to` (by default the clock's time), in order. Returns how many were run.

        A manual clock is moved along, and stands at `to` afterwards.
        """
        manual = self.clock if isinstance(self.clock, ManualClock) else None
        with self.lock:
            end = self.clock.now() if to is None else to
            ran = 0
            while self._queue and self._queue[0][0] <= end:
                at, _, what = heapq.heappop(self._queue)
                if manual is not None:
                    manual.move_to(at)
                self._at = at
                try:
                    if isinstance(what, Process):
                        self._step(what)
                    else:
                        what()
                finally:
                    self._at = None
                ran += 1
            if manual is not None:
                manual.move_to(end)
            return ran

    def settle(self, limit_s: float = 3600.0) -> float:
        """Manual clock only: advance until nothing is going on, or so many seconds have passed. Returns the time."""
        end = self.clock.now() + limit_s
        while (due := self.next_due()) is not None and due <= end:
            self.advance(due)
        return self.clock.now()

    def start(self) -> None:
        """Run the steps on a thread, each when the clock says it is due."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread of `start`; steps still waiting stay in the queue."""
        thread = self._thread
        if thread is not None:
            with self._wake:
                self._stopping = True
                self._wake.notify_all()
            thread.join(10.0)
            self._thread = None

    def _run(self) -> None:
        with self._wake:
            while not self._stopping:
                self.advance()
                wait = None if not self._queue else self._queue[0][0] - self.clock.now()
                if wait is None or wait > 0:
                    self._wake.wait(wait)

    def _push(self, at: float, what: Process | Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (at, self._order, what))
        self._wake.notify_all()

    def _step(self, process: Process) -> None:
        if process.dead:
            return
        try:
            answer = next(process.steps)
        except (StopIteration, CannotGoOn):
            self._end(process)
            return
        if process.lost:
            self._end(process)
        elif isinstance(answer, Slots):
            if len(answer.busy) < answer.limit:
                self._take(answer, process)
            else:
                answer.waiting.append(process)
                process.waits_for = answer
        else:
            self._push(self.now() + answer, process)

    def _take(self, slots: Slots, process: Process) -> None:
        slots.busy.add(process)
        process.slots, process.waits_for = slots, None
        self._push(self.now(), process)

    def _end(self, process: Process) -> None:
        if process.dead:
            return
        process.dead = True
        self._processes.pop(process, None)
        if process.waits_for is not None:
            process.waits_for.waiting.remove(process)
        process.steps.close()
        self._give_up(process)

    def _give_up(self, process: Process) -> None:
        """Its turn is over; the next in line gets it."""
        slots, process.slots = process.slots, None
        if slots is not None:
            slots.busy.discard(process)
            while slots.waiting and len(slots.busy) < slots.limit:
                self._take(slots, slots.waiting.popleft())
