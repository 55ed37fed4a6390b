"""When to ask Nova, and what: services, drains, progress, the ends of migrations, reconcile, proofs.

APScheduler calls the periodic jobs; three threads of our own do what must not wait for a period: the whole cloud at
the start and after a gap (`whole`), migrations that are about to end (`ends`), verification passes (`verify`). All of
them ask through `NovaApi`, turn answers into observations with the one normaliser there is, and take those in by the
one door. What is wanted is read off the fleet each time and never kept here as a plan: a host wants a pass because the
fleet says so, a migration is asked after because it has a verdict and no end.

A job that fails changes nothing but `errors()`, its counter, and its next turn; a pass that fails is told to the fleet
as spoilt, because the fleet waits for its end. A list that is not complete, or that a silent cell may have shortened,
is never used to conclude that a server has left: before that, the server itself is asked for.

What it does not do: judge, publish, or keep state over a restart.
"""

from __future__ import annotations

import functools
import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, PriorityQueue
from typing import Any, Protocol, TypeVar

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.schedulers.background import BackgroundScheduler

from maintd.clock import Clock
from maintd.domain.copying import replace
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Kind, Migration, Phase
from maintd.domain.observations import (
    BaselineCompleted,
    MigrationSeen,
    Observation,
    PassBegun,
    PassRead,
    Read,
    ServerSeen,
    ServersListed,
    ServiceSeen,
)
from maintd.errors import LeaseLost, NovaError, StoreUnavailable
from maintd.ingest.budget import Budget
from maintd.nova.answers import Answer, Pages
from maintd.nova.api import NovaApi

T = TypeVar("T")

BECAUSE = Because("api")
MARGIN_S = 120.0
"""How far back `changes-since` looks beyond the last time: the clocks of Nova's hosts differ (facts 7.4)."""

ENDING_BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
ASKED_ALONE = 50
"""So many servers that are missing from the list of all are asked for one by one."""

NEVER = float("-inf")
ABANDONED_S = 5.0
"""After how long a pass whose end could not be kept is begun anew."""

SUSPECTED = 3.0
"""How many times as often as the rest the suspected are looked at, where not all can be."""
QUIET = 3.0
"""How many times as long as the rest a migration waits that has no counters yet: the bus says when it has."""
RUNNING, POST_COPY = "running", "running (post-copy)"
SHARED = {RUNNING, POST_COPY}
"""Statuses of Nova's of which one list shows all migrations."""
UNJUDGED_S = 60.0
"""For how long after its first pass a migration may yet turn out to be one that does not converge."""

WARM_UP_S = 4.0
WARM_FOR_S = 60.0
STUCK_S = 10.0
"""A worker that looks at the fleet every two seconds at least, and did not for so long, is stuck."""

BREATH_S = 0.05
"""How long the workers rest between two looks at the fleet, however often they are woken."""

log = structlog.get_logger(__name__)


class Door(Protocol):
    """What is needed of `ingest.admit.Admission`."""

    def read(self, function: Callable[[Fleet], T]) -> T: ...
    def admit(self, observations: Iterable[Observation]) -> object: ...
    def admit_chunks(self, observations: Sequence[Observation]) -> object: ...


class Listener(Protocol):
    """Who hears of what was done (metrics, the watchdog). Nothing here may raise or block."""

    def job(self, name: str, outcome: str) -> None:
        """A job ended: done or failed; or could not begin because the last one still runs: overrun."""
        ...

    def verified(self, host: str, outcome: str) -> None:
        """A verification pass ended: whole, disturbed or spoilt."""
        ...

    def reconciled(self, at: float) -> None:
        """The fleet was compared with the API from end to end."""
        ...


class Nobody:
    """A listener that does not listen."""

    def job(self, name: str, outcome: str) -> None:
        return None

    def verified(self, host: str, outcome: str) -> None:
        return None

    def reconciled(self, at: float) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Limits:
    """How often, how much and how long. Seconds; `..._calls` are API calls, `..._rate` is a second.

    Of progress: no migration is asked after twice in `progress_s`, and in the long run no more than `progress_calls`
    are made in it."""

    services_s: float = 30.0
    services_without_bus_s: float = 15.0
    heartbeats_s: float = 4.0
    reconcile_s: float = 600.0
    drains_s: float = 60.0
    closed_without_bus_s: float = 15.0
    list_rate: float = 4.0
    share_from_hosts: int = 6
    progress_s: float = 5.0
    progress_turn_s: float = 1.0
    progress_calls: int = 15
    emptied_s: float = 60.0
    emptied_rate: float = 0.2
    share_from_ends: int = 4
    ends_s: float = 1.0
    node_pages: int = 2
    passes_at_once: int = 4
    pass_deadline_s: float = 120.0
    job_deadline_s: float = 120.0
    whole_deadline_s: float = 1800.0
    heal_pause_s: float = 5.0


class _Deadline:
    def __init__(self, clock: Clock, name: str, limit_s: float) -> None:
        self._clock, self._name, self._limit_s = clock, name, limit_s
        self._until = clock.monotonic() + limit_s

    def passed(self) -> bool:
        return self._clock.monotonic() > self._until

    def check(self) -> None:
        if self.passed():
            raise NovaError(f"{self._name} was given up after {self._limit_s:g} s: Nova answers too slowly.")


@dataclass(slots=True)
class _Ending:
    """A migration that is about to end: since when we ask, how often we have, and what it looked like then."""

    server_id: str
    since: float
    mark: tuple[Phase, Phase | None]
    tries: int = 0
    next_at: float = NEVER

    def asked(self, now: float) -> None:
        self.next_at = now + _backoff(self.tries)
        self.tries += 1


@dataclass(frozen=True, slots=True)
class _Moving:
    """A live migration whose counters may be asked for. `since` is when it was first there to be asked after."""

    key: str
    server_id: str
    since: float
    post_copy: bool
    weight: float
    quiet: bool

    def period_s(self, limits: Limits) -> float:
        """How long after a look the next may follow; a little less, since clocks have no thousandths to agree on."""
        return limits.progress_s * (QUIET if self.quiet else 1.0) - 0.001


def _backoff(tries: int) -> float:
    return ENDING_BACKOFF_S[min(tries, len(ENDING_BACKOFF_S) - 1)]


class _DaemonExecutor(BaseExecutor):  # type: ignore[misc]
    """A thread per run that does not keep the process alive: SIGTERM does not wait for a hanging Nova."""

    def _do_submit_job(self, job: Any, run_times: list[Any]) -> None:
        def run() -> None:
            try:
                events = run_job(job, job._jobstore_alias, run_times, self._logger.name)
            except BaseException:
                self._run_job_error(job.id, *sys.exc_info()[1:])
            else:
                self._run_job_success(job.id, events)

        threading.Thread(target=run, name=f"poll-{job.id}", daemon=True).start()


class Polls:
    """The schedule. `start` begins it; every job can also be called alone, and returns whether it succeeded.

    `ready()` says whether every bus is listened to: not before may the cloud be read for the first time (facts 7.4).
    `on_answer` is given every answer (a recording). `errors()` says what does not work now, by purpose. From here on
    every call of the API goes through `pace`; by default that is one `Budget`. `lost()` is called once the fleet turns
    out to be another's; everything here has stopped then. It may be called from any thread, more than once.
    """

    def __init__(
        self,
        api: NovaApi,
        door: Door,
        clock: Clock,
        *,
        has_bus: bool = True,
        limits: Limits | None = None,
        listener: Listener | None = None,
        ready: Callable[[], bool] = lambda: True,
        on_answer: Callable[[Answer], None] | None = None,
        stopping: threading.Event | None = None,
        pace: Callable[[str | None], bool] | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._api = api
        self._lost = lost
        self._door = door
        self._clock = clock
        self._has_bus = has_bus
        self._limits = limits or Limits()
        self._listener: Listener = listener or Nobody()
        self._ready = ready
        self._on_answer = on_answer
        self._stopping = stopping or threading.Event()
        self._pace = pace or Budget(clock, self._stopping.wait).take
        self._local = threading.local()
        api.pace = self._take
        self._errors: dict[str, str] = {}
        self._lock = threading.Lock()
        self._wakes = {name: threading.Event() for name in ("whole", "ends", "verify")}
        self._threads: list[threading.Thread] = []
        self._scheduler: BackgroundScheduler | None = None
        self._ticked: dict[str, float] = {}

        self._healed_at = NEVER
        self._nodes: tuple[Iterator[Answer], Pages] | None = None  # a list of all nodes that is being read, slowly
        self._read_all_at: float | None = None  # when the last reading of the whole cloud, or what changed in it, began
        self._read_before: float | None = None  # and the one before it
        self._baselined = False
        self._cells_back = 0
        self._silent: frozenset[str] = frozenset()  # hosts whose cell did not answer last
        self._listed_at: dict[str, float] = {}
        self._shared_at: float | None = None
        self._sampled_at: dict[str, float] = {}
        self._progress_at = NEVER  # the last turn
        self._progress_shared_at = NEVER
        self._progress_room = 0.0  # how many calls it may make now
        self._progress_rests_until = NEVER  # monotonic
        self._progress_wrong: dict[str, str] = {}  # what could not be read last, and why
        self._progress_failures = 0  # turns in a row in which nothing was answered
        self._endings: dict[str, _Ending] = {}
        self._ends_shared_at = NEVER
        self._suspects: dict[str, tuple[int, float]] = {}  # server: how often asked after, when to ask next
        self._verified_at: dict[str, float] = {}
        self._in_hand: set[str] = set()
        self._abandoned: dict[str, float] = {}
        self._passes: PriorityQueue[tuple[int, int, str]] = PriorityQueue()
        self._wanted = itertools.count()  # those of one rank are had in the order in which they were wanted
        self._warmed_at = NEVER

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: the schedule, the reading of the whole cloud, ends and proofs. Returns at once."""
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # overruns are counted and said here
        scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": _DaemonExecutor()},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        scheduler.add_listener(self._noticed, EVENT_JOB_MISSED | EVENT_JOB_ERROR | EVENT_JOB_MAX_INSTANCES)
        limits = self._limits
        every = {
            self.look_at_services: limits.services_s if self._has_bus else limits.services_without_bus_s,
            self.reconcile: limits.reconcile_s,
            self.look_at_drains: 5.0,
            self.look_at_progress: min(limits.progress_turn_s, limits.progress_s),
            self.look_at_emptied: 15.0,
            self.look_at_heartbeats: limits.heartbeats_s,
        }
        for job, seconds in every.items():
            name = job.__name__.removeprefix("look_at_")
            scheduler.add_job(job, "interval", seconds=seconds, id=name, jitter=min(1.0, seconds / 10))
        scheduler.start()
        self._scheduler = scheduler
        work = [self._whole_forever, self._ends_forever, self._verify_forever]
        work += [self._passes_forever] * limits.passes_at_once
        for target in work:
            thread = threading.Thread(target=target, name=f"polls-{target.__name__.strip('_')}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End. A call that hangs in Nova is not waited for longer than this; nothing of it is admitted any more."""
        self._stopping.set()
        self.wake()
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)
        until = self._clock.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - self._clock.monotonic()))

    def wake(self) -> None:
        """Something was admitted: look whether it wants an answer. Cheap, and never blocks."""
        for event in self._wakes.values():
            event.set()

    def errors(self) -> dict[str, str]:
        """What does not work at the moment, a sentence for each purpose."""
        with self._lock:
            return dict(self._errors)

    def ticked(self) -> dict[str, float]:
        """When each worker and job was last alive (monotonic seconds), for the watchdog."""
        with self._lock:
            return dict(self._ticked)

    def healthy(self, now: float) -> bool:
        """Whether the workers live and move; `now` is in monotonic seconds.

        Of movement only the one that decides what is to be proven is asked: it never waits for Nova, so a call that
        hangs, which is Nova's fault and is said in `errors`, is not taken for ours.
        """
        with self._lock:
            at = self._ticked.get("passes", now)
        return now - at < STUCK_S and all(thread.is_alive() for thread in self._threads)

    def _noticed(self, event: Any) -> None:
        if event.code == EVENT_JOB_ERROR:
            log.error("poll failed by our fault", job=event.job_id, traceback=event.traceback)
            self._fail(event.job_id, f"{event.job_id} failed by our own fault: {event.exception!r}")
        else:
            self._listener.job(event.job_id, "overrun")

    def _tick(self, name: str) -> None:
        with self._lock:
            self._ticked[name] = self._clock.monotonic()

    def _job(self, name: str, work: Callable[[_Deadline], None], limit_s: float | None = None) -> bool:
        """Run one job; what goes wrong in Nova or in the store becomes its error sentence, and it failed."""
        if self._stopping.is_set():
            return False
        self._tick(name)
        try:
            work(_Deadline(self._clock, name, limit_s or self._limits.job_deadline_s))
        except (NovaError, StoreUnavailable) as wrong:
            self._fail(name, str(wrong))
            return False
        except LeaseLost:
            self._lease_lost()
            return False
        self._tick(name)
        with self._lock:
            recovered = self._errors.pop(name, None)
        if recovered:
            log.info("poll works again", job=name)
        self._listener.job(name, "done")
        return True

    def _lease_lost(self) -> None:
        self._stopping.set()
        self._lost()

    def _fail(self, name: str, sentence: str) -> None:
        with self._lock:
            known = self._errors.get(name)
            self._errors[name] = sentence
        if known != sentence and not self._stopping.is_set():
            log.warning("poll failed", job=name, reason=sentence)
        self._listener.job(name, "failed")

    def _take(self, purpose: str | None) -> bool:
        """The pace of every call; how long each thread has waited for it is no slowness of Nova's."""
        begun = self._clock.monotonic()
        try:
            return self._pace(purpose)
        finally:
            self._local.waited = self._waited() + self._clock.monotonic() - begun

    def _waited(self) -> float:
        return float(getattr(self._local, "waited", 0.0))

    # -- asking -------------------------------------------------------------------------------------------------------

    def _heard(self, answer: Answer) -> Answer:
        if self._on_answer is not None:
            self._on_answer(answer)
        return answer

    def _read(
        self, answers: Iterable[Answer], deadline: _Deadline, pages: Pages | None = None
    ) -> Iterator[tuple[Answer, tuple[Observation, ...]]]:
        """Each answer with what it shows. Raises NovaError at the first that cannot be used."""
        pages = pages or Pages()
        for answer in answers:
            observations = pages.observations(self._heard(answer))
            if answer.error:
                raise NovaError(answer.error)
            if not observations and _must_show(answer):
                raise NovaError(f"The answer to {answer.request} is not as Nova documents it.")
            yield answer, observations
            deadline.check()

    def _admit(self, answers: Iterable[Answer], deadline: _Deadline) -> list[Observation]:
        """Ask, and take everything in; what was seen is returned."""
        seen: list[Observation] = []
        for _, observations in self._read(answers, deadline):
            self._door.admit_chunks(observations)
            seen += observations
        if seen:
            self._wakes["verify"].set()  # what was seen may have made a host a candidate
        return seen

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def look_at_services(self) -> bool:
        """One os-services list: who is up, closed, new or gone, and whose cell does not answer."""
        return self._job("services", self._services)

    def _services(self, deadline: _Deadline) -> None:
        seen = self._admit(self._api.services(), deadline)
        silent = frozenset(o.host for o in seen if isinstance(o, ServiceSeen) and o.cell_unknown)
        if self._silent - silent:
            # A cell is back. What happened in it meanwhile is in no list that was read, so read all of them anew.
            self._baselined = False
            self._cells_back += 1
            self.wake()
        self._silent = silent

    def look_at_heartbeats(self) -> bool:
        """While a heartbeat has changed and that is still to last, look more often: a restart is no loss."""

        def unsure(fleet: Fleet) -> bool:
            return any(host.say_up_at is not None for host in fleet.hosts())

        return self.look_at_services() if self._door.read(unsure) else True

    def reconcile(self) -> bool:
        """Find what was missed: the nodes of hosts, the servers changed since last time, every open migration."""
        if not self._baselined:
            return False
        return self._job("reconcile", self._reconcile, self._limits.reconcile_s)

    def _reconcile(self, deadline: _Deadline) -> None:
        asked_at = self._clock.now()
        # What changed since the last time but one: a cell that did not answer then was left out without a word, and
        # need not have been silent when the services were looked at.
        since = (self._read_before or self._read_all_at or asked_at) - MARGIN_S
        if self._door.read(lambda fleet: bool(fleet.closed_hosts())):
            self._admit(self._api.hypervisors(), deadline)
        else:
            self._some_nodes(deadline)
        self._admit(self._api.servers(changes_since=since), deadline)
        self._open_migrations(deadline)
        self._read_before, self._read_all_at = self._read_all_at, asked_at
        self._listener.reconciled(self._clock.now())

    def _some_nodes(self, deadline: _Deadline) -> None:
        """A little of the list of all nodes, carried on where the last turn left it: while nothing is closed nobody
        needs to know them soon, and in a big cloud they are most of what a reconcile asks for."""
        answers, pages = self._nodes or (self._api.hypervisors(), Pages())
        self._nodes = None  # what goes wrong below ends this list; the next turn begins another
        for _ in range(self._limits.node_pages):
            answer = next(answers, None)
            if answer is None:
                return
            for _, seen in self._read([answer], deadline, pages):
                self._door.admit_chunks(seen)
        self._nodes = answers, pages

    def _open_migrations(self, deadline: _Deadline) -> None:
        """Read every open migration; one that we hold open and Nova does not list has ended, or is asked after."""
        asked_at = self._clock.now()
        seen = self._admit(self._api.open_migrations(), deadline)
        listed = {o.migration_uuid for o in seen if isinstance(o, MigrationSeen)}

        def missing(fleet: Fleet) -> list[str]:
            return [m.server_id for m in fleet.open_migrations() if _unlisted(m, listed, asked_at)]

        self._suspect(self._door.read(missing))

    def look_at_drains(self) -> bool:
        """List what is on the hosts being drained (without a bus: on all closed hosts), as each is due."""
        return self._job("drains", self._drains)

    def _drains(self, deadline: _Deadline) -> None:
        def watched(fleet: Fleet) -> tuple[list[str], bool]:
            hearing = self._has_bus and all(bus.deaf_from is None for bus in fleet.buses())
            hosts = (fleet.host(name) for name in fleet.closed_hosts())
            wanted = (h.name for h in hosts if h and (not hearing or (h.drain_id and not h.emptied)))
            return sorted(name for name in wanted if not hearing or not _proving(fleet, name)), hearing

        hosts, hearing = self._door.read(watched)
        limits, now = self._limits, self._clock.now()
        shared = len(hosts) > limits.share_from_hosts
        base_s = limits.drains_s if hearing else limits.closed_without_bus_s
        period_s = max(base_s, len(hosts) * (1 if shared else 2) / limits.list_rate)
        self._listed_at = {name: self._listed_at[name] for name in hosts if name in self._listed_at}
        if shared and (self._shared_at is None or now - self._shared_at >= base_s):
            since = self._shared_at if self._shared_at is not None else now
            self._open_migrations(deadline)
            self._admit(self._api.migrations_changed(since - MARGIN_S), deadline)
            self._shared_at = now
        due = [name for name in hosts if now - self._listed_at.get(name, NEVER) >= period_s]
        wrong: list[str] = []
        for name in sorted(due, key=lambda name: self._listed_at.get(name, NEVER)):
            self._listed_at[name] = now
            try:
                self._host(name, deadline, with_migrations=not shared)
            except NovaError as failed:
                wrong.append(str(failed))
                if len(wrong) == 3 or deadline.passed():  # one host must not keep the others waiting; a dead Nova may
                    break
        if wrong:
            raise NovaError(wrong[0])

    def _host(self, host: str, deadline: _Deadline, *, with_migrations: bool) -> None:
        """One host's servers and migrations. A server that has left is asked for itself before the list is believed:
        that says where it is, and a cell that is silent (facts 4.1) cannot pass for an empty host."""
        seen: list[Observation] = []
        for _, observations in self._read(self._api.servers(host), deadline):
            seen += observations
        listed = next((o.server_ids for o in seen if isinstance(o, ServersListed)), None)
        if listed is None:
            raise NovaError(f"The list of servers on {host} is not complete, so nothing follows from it.")
        missing = sorted(self._door.read(lambda fleet: set(fleet.servers_on(host))) - listed)
        there = {o.server_id for o in self._ask_after(missing[:20], deadline) if o.host == host}
        seen = [replace(o, server_ids=o.server_ids | there) if isinstance(o, ServersListed) else o for o in seen]
        if len(missing) > 20:
            seen = [o for o in seen if not isinstance(o, ServersListed)]
        self._door.admit_chunks(seen)
        if with_migrations:
            self._admit(self._api.migrations_of_host(host), deadline)

    def look_at_progress(self) -> bool:
        """Byte counters of the live migrations under way, as many as the budget has room for, the suspected more often
        than the rest. No look while Nova is given a rest: it was slow, or did not answer."""
        self._tick("progress")
        if self._clock.monotonic() < self._progress_rests_until:
            return True
        return self._job("progress", self._progress)

    def _progress(self, deadline: _Deadline) -> None:
        limits, now = self._limits, self._clock.now()
        found = self._door.read(lambda fleet: list(_moving(fleet, self._has_bus)))
        self._sampled_at = {m.key: self._sampled_at[m.key] for m in found if m.key in self._sampled_at}
        passed_s, self._progress_at = now - self._progress_at, now
        room = min(1.0, self._progress_room) + passed_s * limits.progress_calls / limits.progress_s
        self._progress_room = min(float(limits.progress_calls), room)  # what was not wanted is not saved up

        asks = self._shared_looks(found, now)
        due = [m for m in found if not m.post_copy and now - self._looked_at(m) >= m.period_s(limits)]
        due.sort(key=lambda m: -m.weight * (now - self._sampled_at.get(m.key, m.since)))
        asks += [(m.key, functools.partial(self._look, m)) for m in due]
        still = {m.key for m in found} | (SHARED if found else set())
        self._progress_wrong = {key: text for key, text in self._progress_wrong.items() if key in still}
        taken_s, done, wrong = 0.0, 0, 0
        try:
            for key, ask in asks[: int(self._progress_room)]:
                if taken_s > limits.progress_s / 2 or wrong == 3 or deadline.passed():
                    break
                self._progress_room -= 1.0
                begun, waited = self._clock.monotonic(), self._waited()
                try:
                    ask(deadline)
                    done += 1
                    self._progress_wrong.pop(key, None)
                except NovaError as failed:
                    wrong += 1
                    self._progress_wrong[key] = str(failed)
                finally:
                    taken_s += self._clock.monotonic() - begun - (self._waited() - waited)
        finally:
            self._progress_failures = self._progress_failures + 1 if wrong and not done else 0
            rest_s = taken_s  # so that at most half of the time Nova has a question of this kind before it
            if self._progress_failures:
                rest_s += RETRY_S[min(self._progress_failures + 1, len(RETRY_S) - 1)]
            self._progress_rests_until = self._clock.monotonic() + rest_s
        for sentence in self._progress_wrong.values():
            raise NovaError(sentence)  # until what could not be read is read, or is over

    def _looked_at(self, m: _Moving) -> float:
        return self._sampled_at.get(m.key, m.since if m.quiet else NEVER)

    def _look(self, m: _Moving, deadline: _Deadline) -> None:
        waited, begun = self._waited(), self._clock.now()
        try:
            seen = self._admit([self._api.server_migrations(m.server_id)], deadline)
        finally:
            self._sampled_at[m.key] = begun + self._waited() - waited  # when it was asked
        if not seen:
            self._suspect([m.server_id])  # over, or in post-copy, which this call does not show

    def _shared_looks(self, found: Sequence[_Moving], now: float) -> list[tuple[str, Callable[[_Deadline], object]]]:
        """Lists for what cannot be sampled one by one: that its row changes at all is seen of all of them in one."""
        wanted: list[str] = []
        if now - self._progress_shared_at < self._limits.progress_s:
            return []
        if sum(not m.post_copy for m in found) > self._limits.progress_calls:
            wanted.append(RUNNING)
        if any(m.post_copy for m in found):
            wanted.append(POST_COPY)
        if wanted:
            self._progress_shared_at = now

        def look(status: str, deadline: _Deadline) -> None:
            self._admit(self._api.migrations_with_status(status), deadline)

        return [(status, functools.partial(look, status)) for status in wanted]

    def look_at_emptied(self) -> bool:
        """Prove again, slowly, that what was proven empty still is."""
        return self._job("emptied", self._emptied)

    def _emptied(self, deadline: _Deadline) -> None:
        def emptied(fleet: Fleet) -> list[str]:
            hosts = (fleet.host(name) for name in fleet.closed_hosts())
            return [h.name for h in hosts if h and h.emptied]

        hosts = self._door.read(emptied)
        now, limits = self._clock.now(), self._limits
        period_s = max(limits.emptied_s, len(hosts) / limits.emptied_rate)
        with self._lock:
            self._verified_at = {h: at for h, at in self._verified_at.items() if now - at < period_s}
            due = [name for name in hosts if name not in self._verified_at]
        for name in due[: max(1, int(15.0 * limits.emptied_rate))]:
            self._want_pass(name)

    # -- the whole cloud ----------------------------------------------------------------------------------------------

    def baseline(self, since: float | None = None) -> bool:
        """Read the whole cloud; with `since` (seconds since the epoch) only what changed, to make up for a gap."""
        return self._job("baseline", lambda deadline: self._baseline(deadline, since), self._limits.whole_deadline_s)

    def _baseline(self, deadline: _Deadline, since: float | None) -> None:
        asked_at = self._clock.now()
        self._services(deadline)
        silent, cells_back = self._silent, self._cells_back
        if since is None:
            self._admit(self._api.hypervisors(), deadline)
            whole = self._all_servers(deadline)
            self._services(deadline)
            if not silent and not self._silent:  # else a silent cell's servers are missing from the list
                self._door.admit(self._believed(whole, deadline))
            gap = self._door.read(_gap)
            if gap is not None:  # what was deleted meanwhile is in no list of what there is
                self._admit(self._api.servers(changes_since=gap - MARGIN_S), deadline)
        else:
            self._admit(self._api.servers(changes_since=since - MARGIN_S), deadline)
            self._admit(self._api.migrations_changed(since - MARGIN_S), deadline)
        self._open_migrations(deadline)
        if since is None:
            self._baselined = self._cells_back == cells_back  # one that came back meanwhile was not read
        self._read_before, self._read_all_at = self._read_all_at, asked_at
        self._door.admit((BaselineCompleted(self._clock.now(), BECAUSE, asked_at),))
        self._listener.reconciled(self._clock.now())
        self.wake()

    def _all_servers(self, deadline: _Deadline) -> list[ServersListed]:
        """Take in all servers. The list of them is returned, since it says of others that they are gone."""
        listed: list[ServersListed] = []
        for _, observations in self._read(self._api.servers(), deadline):
            listed += [o for o in observations if isinstance(o, ServersListed)]
            self._door.admit_chunks([o for o in observations if not isinstance(o, ServersListed)])
        if not listed:
            raise NovaError("The list of all servers is not complete, so nothing follows from it.")
        return listed

    def _believed(self, whole: Sequence[ServersListed], deadline: _Deadline) -> Sequence[ServersListed]:
        """The list of all servers, once those that are missing from it have been asked for.

        Nova leaves out, in silence, the servers of a cell that did not answer the query of one page (facts 4.1), and
        the services can be there before and after. Where many are missing the list is read again, and what either
        shows is there.
        """
        missing = self._missing(whole)
        if len(missing) > ASKED_ALONE:
            again = self._all_servers(deadline)
            whole = [replace(o, server_ids=o.server_ids.union(*(a.server_ids for a in again))) for o in whole]
            missing = self._missing(whole)
        there = self._ask_after(missing if len(missing) <= ASKED_ALONE else (), deadline)
        return [replace(o, server_ids=o.server_ids | {s.server_id for s in there}) for o in whole]

    def _ask_after(self, server_ids: Iterable[str], deadline: _Deadline) -> list[ServerSeen]:
        """Ask for servers one by one; those that there are."""
        found: list[ServerSeen] = []
        for server_id in server_ids:
            seen = self._admit([self._api.server(server_id)], deadline)
            found += [o for o in seen if isinstance(o, ServerSeen) and not o.deleted]
        return found

    def _missing(self, whole: Sequence[ServersListed]) -> list[str]:
        """Servers that are held somewhere and that a list of all does not show."""

        def missing(fleet: Fleet) -> list[str]:
            return [
                s.server_id
                for s in fleet.servers()
                if s.deleted_at is None and (s.host or s.landing)
                and any(s.seen_at < o.asked_at and s.server_id not in o.server_ids for o in whole)
            ]  # fmt: skip

        return self._door.read(missing)

    def whole_once(self) -> bool | None:
        """Read what needs reading: all of it, or what a gap hid. None where nothing does."""
        if not self._ready():
            return None
        if not self._baselined:
            return self.baseline()

        since, now = self._door.read(_gap), self._clock.now()
        if since is None or now - self._healed_at < self._limits.heal_pause_s:
            return None
        self._healed_at = now
        return self.baseline(since if now - since < 86400.0 else None)

    def _whole_forever(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._tick("whole")
            done = self._guard("baseline", self.whole_once)
            failures = failures + 1 if done is False else 0
            if failures:
                self._stopping.wait(RETRY_S[min(failures, len(RETRY_S)) - 1])
            else:
                self._rest("whole", 1.0)

    # -- the ends of migrations ---------------------------------------------------------------------------------------

    def _suspect(self, server_ids: Iterable[str], tries: int = 0) -> None:
        at = NEVER if tries == 0 else self._clock.now() + _backoff(tries)
        with self._lock:
            for server_id in server_ids:
                self._suspects.setdefault(server_id, (tries, at))
        self._wakes["ends"].set()

    def look_at_ends(self) -> bool:
        """Ask after migrations that have a verdict, or are finishing, and whose end Nova has not said yet; and after
        those that Nova should have listed and did not."""
        now = self._clock.now()
        self._note_endings(now)
        due = [e for e in self._endings.values() if e.next_at <= now]
        shared_until = self._ends_shared_at + self._limits.ends_s
        if now < shared_until and len(self._endings) >= self._limits.share_from_ends:
            for ending in due:
                ending.next_at = shared_until  # so many end that the next list is for those of this second as well
            due = []
        with self._lock:
            suspects = {s: tries for s, (tries, at) in self._suspects.items() if at <= now}
        if not due and not suspects:
            self._tick("ends")
            return True
        return self._job("ends", lambda deadline: self._ends(due, suspects, deadline))

    def _ends(self, due: Sequence[_Ending], suspects: dict[str, int], deadline: _Deadline) -> None:
        now = self._clock.now()
        for ending in due:
            ending.asked(now)
        servers = list(dict.fromkeys(e.server_id for e in due))
        if servers and len(self._endings) >= self._limits.share_from_ends:
            self._ends_shared_at = now
            since = min(e.since for e in due) - MARGIN_S
            self._admit(self._api.migrations_changed(since, purpose="end"), deadline)
            servers = []
        for server_id in dict.fromkeys([*servers, *suspects]):
            with self._lock:
                self._suspects.pop(server_id, None)
            try:
                self._admit(self._api.migrations_of_server(server_id, purpose="end"), deadline)
            except NovaError:
                self._suspect([server_id], suspects.get(server_id, 0) + 1)
                raise
        self._where_they_are({**dict.fromkeys((e.server_id for e in due), 0), **suspects}, deadline)

    def _note_endings(self, now: float) -> None:
        def ending(fleet: Fleet) -> list[tuple[str, str, tuple[Phase, Phase | None]]]:
            return [
                (m.key, m.server_id, (m.phase, m.verdict))
                for m in fleet.open_migrations()
                if m.verdict is not None or m.phase is Phase.FINISHING
            ]

        found = {key: (server_id, mark) for key, server_id, mark in self._door.read(ending)}
        for key in self._endings.keys() - found.keys():
            del self._endings[key]
        for key, (server_id, mark) in found.items():
            known = self._endings.get(key)
            if known is None:
                self._endings[key] = _Ending(server_id, now, mark)
            elif known.mark != mark:
                known.mark, known.tries, known.next_at = mark, 0, 0.0

    def _where_they_are(self, asked: dict[str, int], deadline: _Deadline) -> None:
        """Ask for the servers themselves where the end of a move does not say where it left them: after what failed,
        and after evacuations, whose host changes after the last notification (facts 2.6), until it has."""

        def unsure(fleet: Fleet) -> list[str]:
            return [s for s in sorted(asked) if _is_unsure(fleet, s)]

        for server_id in self._door.read(unsure):
            self._admit([self._api.server(server_id)], deadline)
        for server_id in self._door.read(lambda fleet: [s for s in sorted(asked) if _is_still_there(fleet, s)]):
            if asked[server_id] < len(ENDING_BACKOFF_S):
                self._suspect([server_id], asked[server_id] + 1)

    def _ends_forever(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._tick("ends")
            done = self._guard("ends", self.look_at_ends)
            failures = failures + 1 if done is False else 0
            if failures:
                self._stopping.wait(RETRY_S[min(failures, len(RETRY_S)) - 1])
                continue
            with self._lock:
                moments = [at for _, at in self._suspects.values()] + [e.next_at for e in self._endings.values()]
            self._rest("ends", min(2.0, min(moments, default=self._clock.now() + 2.0) - self._clock.now()))

    # -- proofs -------------------------------------------------------------------------------------------------------

    def passes_due(self) -> list[str]:
        """Hosts that want a verification pass now and are not in hand. None while a gap can be made up for: until that
        is done no pass proves anything, and all of them together would keep it waiting."""
        now = self._clock.now()
        with self._lock:
            again = [host for host, at in self._abandoned.items() if at <= now]
            healing = self._ready() and "baseline" not in self._errors

        def wanted(fleet: Fleet) -> list[str]:
            if healing and _gap(fleet) is not None:
                return []
            closed = fleet.closed_hosts()
            return [host for host in dict.fromkeys([*fleet.verify_due(now), *again]) if host in closed]

        hosts = self._door.read(wanted)
        with self._lock:
            return [host for host in hosts if host not in self._in_hand]

    def _want_pass(self, host: str) -> None:
        with self._lock:
            if host in self._in_hand:
                return
            self._in_hand.add(host)
        self._passes.put((self._door.read(lambda fleet: _rank(fleet, host)), next(self._wanted), host))

    def verify(self, host: str) -> str:
        """One verification pass over a host. Returns whole, disturbed or spoilt; never raises."""
        deadline = _Deadline(self._clock, "verify", self._limits.pass_deadline_s)
        self._tick("verify")
        with self._lock:
            self._abandoned.pop(host, None)
        try:
            outcome, sentence = self._pass(host, deadline)
        except StoreUnavailable as wrong:
            outcome, sentence = "spoilt", f"The pass over {host} could not be kept: {wrong}"
            with self._lock:
                # The fleet may still believe that the pass goes on; a new one is the only thing that ends it.
                self._abandoned[host] = self._clock.now() + ABANDONED_S
        except LeaseLost:
            self._lease_lost()
            return "spoilt"
        except Exception as fault:
            log.exception("pass failed by our fault", host=host)
            sentence = f"The pass over {host} failed by our own fault: {type(fault).__name__}: {fault}"
            outcome = "spoilt"
            self._break_off(host, sentence)
        with self._lock:
            self._verified_at[host] = self._clock.now()
        if sentence is not None:
            self._fail("verify", sentence)
        elif outcome == "whole":
            with self._lock:
                self._errors.pop("verify", None)
        self._listener.verified(host, outcome)
        return outcome

    def _pass(self, host: str, deadline: _Deadline) -> tuple[str, str | None]:
        def known(fleet: Fleet) -> tuple[int, tuple[str, ...]]:
            verification, held = fleet.verification(host), fleet.host(host)
            return (verification.pass_number if verification else 0) + 1, held.nodes if held else ()

        number, nodes = self._door.read(known)

        def standing(fleet: Fleet) -> str:
            v = fleet.verification(host)
            if v is None or v.begun_at is None or v.pass_number != number:
                return "over"
            return "undisturbed" if v.generation == v.begun_generation else "disturbed"

        self._door.admit((PassBegun(self._clock.now(), BECAUSE, host, number),))
        error: str | None = None
        pages, running = Pages(), set[str]()
        for answer in self._api.verify(host, nodes, number):
            seen = pages.observations(self._heard(answer))
            running.update(
                str(i) for o in seen if isinstance(o, PassRead) and o.read is Read.HYPERVISOR for i in o.found
            )
            # The list of servers leaves out, in silence, what a cell did not answer (facts 4.1); that of nodes fails.
            self._door.admit(
                replace(o, server_ids=o.server_ids | running) if isinstance(o, ServersListed) else o for o in seen
            )
            error = answer.error
            now = self._door.read(standing)
            if error is not None or now == "over":
                break
            if now == "disturbed":
                self._spoil(host, number, "something was seen of the host while the pass went on")
                return "disturbed", None
            if deadline.passed():
                error = f"The pass over {host} was given up after {self._limits.pass_deadline_s:g} s."
                break
        if self._door.read(standing) != "over":
            error = error or f"The pass over {host} ended without a last answer that could be used."
            self._spoil(host, number, error)
        return ("spoilt", error) if error is not None else ("whole", None)

    def _break_off(self, host: str, sentence: str) -> None:
        """End a pass that our own fault ended, so that the fleet does not wait for it for ever. Never raises."""
        try:
            held = self._door.read(lambda fleet: fleet.verification(host))
            if held is not None and held.begun_at is not None:
                self._spoil(host, held.pass_number, sentence)
        except LeaseLost:
            self._lease_lost()
        except Exception:
            log.exception("pass could not be ended", host=host)
            with self._lock:
                self._abandoned[host] = self._clock.now() + ABANDONED_S
        self._stopping.wait(1.0)  # what is our fault may be so again at once

    def _spoil(self, host: str, number: int, sentence: str) -> None:
        now = self._clock.now()
        self._door.admit(
            (PassRead(now, BECAUSE, host, number, read=Read.SERVICE, asked_at=now, complete=False, error=sentence),)
        )

    def _verify_forever(self) -> None:
        while not self._stopping.is_set():
            self._tick("passes")
            for host in self._guard("verify", self.passes_due) or ():
                self._want_pass(host)
            next_at = self._guard("verify", lambda: self._door.read(lambda fleet: fleet.next_verify_at()))
            self._warm_up(next_at)
            wait_s = 2.0 if next_at is None else min(2.0, next_at - self._clock.now())
            self._rest("verify", wait_s)

    def _warm_up(self, next_at: float | None) -> None:
        """Shortly before a pass, one small question to each service whose answer nobody waits for.

        A token that Nova or Placement has to look up again with Keystone costs the first call a second or two; that
        should not be the second pass of a proof.
        """
        now = self._clock.now()
        if next_at is None or not 0.5 < next_at - now < WARM_UP_S or now - self._warmed_at < WARM_FOR_S:
            return
        self._warmed_at = now

        def nodes(fleet: Fleet) -> list[tuple[str, str]]:
            hosts = [fleet.host(name) for name in fleet.closed_hosts()]
            return [(host.name, host.nodes[0]) for host in hosts if host is not None and host.nodes]

        known = self._door.read(nodes)
        if not known:
            return
        host, node = min(known)

        def ask() -> None:
            self._heard(self._api.service(host))
            self._heard(self._api.traits(node))

        threading.Thread(target=ask, name="polls-warm-up", daemon=True).start()

    def _passes_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                _, _, host = self._passes.get(timeout=1.0)
            except Empty:
                continue
            try:
                self._guard("verify", lambda host=host: self.verify(host))  # type: ignore[misc]
            finally:
                with self._lock:
                    self._in_hand.discard(host)
                self._wakes["verify"].set()

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _rest(self, name: str, seconds: float) -> None:
        """Until woken, or for so long; at least for a breath."""
        self._stopping.wait(BREATH_S)
        wake = self._wakes[name]
        if seconds > BREATH_S:
            wake.wait(seconds - BREATH_S)
        wake.clear()

    def _guard(self, name: str, work: Callable[[], T]) -> T | None:
        """A worker outlives our own mistakes: they are logged and counted, and it goes on."""
        try:
            return work()
        except Exception as fault:
            log.exception("poll failed by our fault", job=name)
            self._fail(name, f"{name} failed by our own fault: {type(fault).__name__}: {fault}")
            self._stopping.wait(1.0)
            return None


def _moving(fleet: Fleet, has_bus: bool) -> Iterator[_Moving]:
    """The live migrations under way, with how much each look at one is worth."""
    for m in fleet.open_migrations():
        if m.kind is Kind.LIVE and m.phase in (Phase.PREPARING, Phase.RUNNING) and m.verdict is None:
            weight = SUSPECTED if _suspected(fleet, m.key) else 1.0
            since = m.begun_at if m.worked_from is None else m.worked_from
            yield _Moving(m.key, m.server_id, since, m.post_copy, weight, has_bus and m.phase is Phase.PREPARING)


def _suspected(fleet: Fleet, key: str) -> bool:
    """Whether a migration is stalled, or might soon be called so: nothing has changed between the last looks, its
    passes do not shrink, or its first pass is just over, before which that cannot be told."""
    curve = fleet.curve(key)
    if fleet.stalls_of(key):
        return True
    if curve is None or not curve.points:
        return False
    at, first = curve.points[-1].at, curve.first_pass_ended_at
    return curve.changed_at < at or curve.flat_since is not None or (first is not None and at - first < UNJUDGED_S)


def _proving(fleet: Fleet, host: str) -> bool:
    """Whether a pass goes on or is wanted, which reads all that a list would."""
    v = fleet.verification(host)
    return v is not None and (v.verify_at is not None or v.begun_at is not None)


def _rank(fleet: Fleet, host: str) -> int:
    """Whose pass comes first where many wait: one that may end in a proof, one that may lead to it, a proof again."""
    known, verification = fleet.host(host), fleet.verification(host)
    if known is not None and known.emptied:
        return 2
    return 0 if verification is not None and verification.first is not None else 1


def _gap(fleet: Fleet) -> float | None:
    """Since when something may have been missed that can be made up for now."""
    blind = [b.blind_from for b in fleet.buses() if b.blind_from is not None and b.deaf_from is None and b.connected]
    return min(blind) if blind else None


def _is_unsure(fleet: Fleet, server_id: str) -> bool:
    """Whether a move ended in a way that leaves open where the server is."""
    server, moves = fleet.server(server_id), fleet.migrations_of(server_id)
    if server is None or server.deleted_at is not None or not moves:
        return _is_still_there(fleet, server_id)
    if moves[-1].open:
        # Nothing is about to end here, so its row was missed in a list: rows go with their server (facts 2.6).
        waits = moves[-1].phase is Phase.AWAITING_CONFIRMATION and moves[-1].verdict is None
        return waits or server.host is None or _is_still_there(fleet, server_id)
    return moves[-1].phase is Phase.FAILED or server.host is None or _is_still_there(fleet, server_id)


def _is_still_there(fleet: Fleet, server_id: str) -> bool:
    """Whether an evacuated server is, as far as we know, still on the host it was evacuated from."""
    server, moves = fleet.server(server_id), fleet.migrations_of(server_id)
    if server is None or server.deleted_at is not None or not moves:
        return False
    last = moves[-1]
    over = last.phase is Phase.COMPLETED or last.verdict is Phase.COMPLETED
    return last.kind is Kind.EVACUATION and over and server.host == last.source


def _unlisted(m: Migration, listed: set[str], asked_at: float) -> bool:
    """Whether Nova's lists of open migrations should have had this one, and did not."""
    if m.migration_uuid is not None:
        return m.migration_uuid not in listed
    return m.begun_at < asked_at - 5.0  # Nova writes the row before a compute says a word of it


def _must_show(answer: Answer) -> bool:
    """Whether the answer has rows, and is the last page: then something must follow from it."""
    body = answer.body if isinstance(answer.body, dict) else {}
    links = any(key.endswith("_links") and value for key, value in body.items())
    return not links and any(isinstance(value, list) and value for value in body.values())
