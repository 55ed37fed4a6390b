"""A maintd that lives through a written-down story of a cloud, and is held to the truth.

`Interleaving(story, seed)` is one order of deliveries, losses and readings over one story. What Nova said arrives late,
twice (also under another id), in another order, or not at all; the bus may be away for a while, or maintd itself, and
what was missed is then read from the API. The questions are those of `maintd.ingest.polls` and `NovaApi.verify`, in
their order, each answered as of some moment between its being sent and its answer: passes, drains, the ends of moves,
services, the reconcile, the whole cloud after a gap. An answer may not come, or come in half, or in two pages that are
of two moments. What is seen goes through the real reducer into a real fleet.

What is held against the truth:

- *false*: `host.emptied` was published of a host on which something was, or to which something was on its way;
- *missed*: at the end, long after the last thing happened and with the API answering, a closed host is empty, nothing
  in Nova says otherwise, and the fleet does not know it; unless something was lost after the last thing that came over
  the bus, and the fleet has said that this is deaf, for then every host is unknown on purpose;
- *unretracted*: something came to a host that was proven empty, stayed, and nothing was said of it.

What nobody can know is left out, and only that (and counted, as `excused`):

- whoever is scheduled to the host between the proof's last look at Placement and the proof's end, a second later: that
  is a refill, and to be said as such (`_looked_at`);
- a server that was deleted, of which nothing that maintd heard or read since it arrived on the host ever connected it
  with the host; or that was evacuated or deleted while the host was down, where the host has been up again since and
  nothing that was heard or read says that it was ever down before, or what was done meanwhile (`_unknowable`). A host
  that goes down once more is no news of that: whoever found the server gone, and the host alive after it, has to take
  it that nova-compute had a part in it; else every delete of which a message is lost would leave residue in the end.

Files that a failed resize left are told in the event's warnings, and that is what they are held to (`_unwarned`).
"""

from __future__ import annotations

import bisect
import heapq
import math
import random
from collections.abc import Callable, Generator, Iterable
from itertools import count
from typing import TypeVar

from maintd.domain import events
from maintd.domain.copying import replace
from maintd.domain.fleet import Fleet
from maintd.domain.migrations import RELEASED_STATUSES, STEPS
from maintd.domain.model import Because, Bus, Kind, Knowledge, Phase, Policy, Value
from maintd.domain.observations import (
    BaselineCompleted,
    BusSeen,
    MigrationSeen,
    MovesListed,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    Read,
    ResidueCleared,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    ServicesListed,
    TimerDue,
)
from maintd.domain.reducer import reduce
from maintd.ingest.polls import ENDING_BACKOFF_S, MARGIN_S, _gap, _is_still_there, _is_unsure, _unlisted
from maintd.nova.answers import BECAUSE_API
from maintd.nova.api import OPEN_STATUSES
from tests.domain import modelled_answers as api
from tests.domain.modelled_cloud import ACTS_S, T0, CloudStory, Frame, MoveRow, ServerRow, Truth

CALM_AT = T0 + ACTS_S + 110.0
"""From here on the API answers: what is missed now is missed for good."""
LAST_S = 720.0
"""What is not known by then is missed: three reconciles after everything is calm."""
RETRACTED_IN_S = 150.0
"""How long a refill may go unsaid: two looks at emptied hosts, and a failure or two."""

END_S = 340.0
PUBLISHERS = ("nova-compute:h1", "nova-compute:h2", "nova-compute:ctl-01", "nova-api:ctl-01")
Job = Generator[float, None, None]
Row = TypeVar("Row", ServerRow, MoveRow)
LIVE = Because("operator")


class Wrong(AssertionError):
    """`host.emptied` was said of a host that was not empty."""


class Failed(Exception):
    """A question was not answered."""


class Interleaving:
    """One of them. `play` raises `Wrong` for a false host.emptied; `missed` and `unretracted` are asked after it."""

    def __init__(self, story: CloudStory, seed: int, *, disorder: bool = True) -> None:
        self.story = story
        self.rng = rng = random.Random(seed)
        self.now = T0
        self.policy = Policy(has_cloud=True, leftover_grace_s=60.0)
        self.fleet = Fleet(self.policy)
        self.numbers = count(1)
        self.emptied = 0
        self.retracted = 0
        self.excused = 0
        self.events: list[tuple[float, events.Event]] = []
        self.log: list[Observation] = []
        self.loss = rng.choice((0.0, 0.0, 0.05, 0.3, 1.0)) if disorder else 0.0
        self.late = rng.choice((0.0, 0.1, 0.4)) if disorder else 0.0
        self.twice = rng.choice((0.0, 0.2)) if disorder else 0.0
        self.failing = rng.choice((0.0, 0.02, 0.1)) if disorder else 0.0
        self.halves = 0.1 if disorder else 0.0
        mute = rng.choice(PUBLISHERS) if disorder and rng.random() < 0.2 else None
        self.mute = mute  # a process whose nova.conf was forgotten
        self.latency = rng.choice((0.02, 0.1, 0.1, 0.5))
        self.lost_at = -math.inf  # when Nova last said what will never arrive
        self.gap: tuple[float, float] | None = None
        if disorder and rng.random() < 0.2:
            begins = T0 + rng.uniform(5, ACTS_S)
            self.gap = (begins, begins + rng.uniform(2, 40))
        self.restart: tuple[float, float] | None = None
        if disorder and rng.random() < 0.12:
            ends = T0 + rng.uniform(5, ACTS_S)
            self.restart = (ends, ends + rng.uniform(1, 30))
        self.frames = story.frames
        self.at_frame = 0
        self.starts = [f.at for f in self.frames]
        self.jobs: list[tuple[float, int, Job]] = []
        self.order = count()
        self.in_hand: set[str] = set()
        self.ending = False
        self.endings: dict[str, tuple[object, int, float]] = {}
        self.suspects: dict[str, tuple[int, float]] = {}
        self.silent: frozenset[str] = frozenset()
        self.baselined = False
        self.read_all_at = self.read_before = T0
        self.verified_at: dict[str, float] = {}

    # -- time ---------------------------------------------------------------------------------------------------------

    def play(self) -> None:
        fleet, jobs = self.fleet, self.jobs
        fleet.put(Knowledge(memory_since=T0))
        self.admit((BusSeen(T0, LIVE, "default", "connected"),))
        self._first_look()
        letters = self._letters()
        self._begin_all()
        if self.gap:
            self._begin(self._bus_away(*self.gap), self.gap[0] - T0)
        position, last = 0, len(letters)
        end = T0 + END_S
        while True:
            at_letter = letters[position][0] if position < last else end
            at_job = jobs[0][0] if jobs else end
            at_timer = fleet.next_due()
            at_pass = self._next_pass_at()
            at = min(at_letter, at_job)
            if at_pass is not None and at_pass < at:
                at = max(at_pass, self.now)
            if at_timer is not None and at_timer < at:
                at = at_timer
            if self.restart is not None and at >= self.restart[0]:
                self._begin_anew(*self.restart)
                fleet, jobs, self.restart = self.fleet, self.jobs, None
                continue
            if at >= end:
                self.now = end
                if end >= T0 + LAST_S or not self.missed():
                    return
                end += 80.0  # what is not known yet may be found at the next turn
                continue
            self.now = now = max(self.now, at)
            if at_timer is not None and at_timer <= now:
                taken = fleet.take_due(now)
                if taken is not None:
                    self.admit((TimerDue(taken[0], subject=taken[1]),))
                continue
            if at_letter <= now:
                shows = letters[position][2]
                position += 1
                self._hear()
                self.admit([replace(o, seen_at=now) for o in shows])
            elif at_job <= now:
                _, _, job = heapq.heappop(jobs)
                self._run(job)
            if at_pass is not None and at_pass <= now:
                for host in fleet.verify_due(now):
                    if host in fleet.closed_hosts():
                        self._want_pass(host)

    def _begin_all(self) -> None:
        for job, first_s in (
            (self._services_forever, self.rng.uniform(0, 30)),
            (self._drains_forever, self.rng.uniform(0, 30)),
            (self._reconcile_forever, self.rng.uniform(40, 100)),
            (self._emptied_forever, self.rng.uniform(0, 15)),
            (self._operator_forever, self.rng.uniform(60, 90)),
        ):
            self._begin(job(), first_s)

    def _begin_anew(self, ended: float, at: float) -> None:
        """maintd ends, and begins again later with what was kept, as `daemon` does: it has been blind in between."""
        held, self.now = self.fleet, at
        kept: list[Value] = [held.knowledge] if held.knowledge is not None else []
        kept += [*held.hosts(), *held.servers(), *held._migrations.values()]
        kept += [drain for drain in held.drains() if drain.ended_at is None]
        kept += [r for r in held._residue.values() if r.cleared_at is None or r.kind == "evacuated"]
        kept += [*held.notices(), *held._projects.values()]
        kept += [Bus(b.name, blind_from=b.blind_from, last_message_at=b.last_message_at) for b in held.buses()]
        self.fleet, self.jobs, self.in_hand = Fleet(self.policy, kept), [], set()
        self.ending, self.endings, self.suspects = False, {}, {}
        self.silent, self.baselined, self.verified_at = frozenset(), False, {}
        self.admit((BusSeen(at, LIVE, "default", "blind", ended, "nobody watched"),))
        self.admit((BusSeen(at, LIVE, "default", "connected"),))
        self._begin(self._make_whole())
        self._begin_all()
        if self.gap and self.gap[1] > at:
            self._begin(self._bus_away(*self.gap), max(0.0, self.gap[0] - at))

    def _next_pass_at(self) -> float | None:
        """When a host that is not in hand wants a pass."""
        closed, in_hand, first = self.fleet.closed_hosts(), self.in_hand, None
        for name in closed:
            held = self.fleet.verification(name)
            if held is not None and held.verify_at is not None and name not in in_hand:
                first = held.verify_at if first is None else min(first, held.verify_at)
        return first

    def _begin(self, job: Job, delay_s: float = 0.0) -> None:
        heapq.heappush(self.jobs, (self.now + delay_s, next(self.order), job))

    def _run(self, job: Job) -> None:
        try:
            pause_s = next(job)
        except StopIteration:
            return
        heapq.heappush(self.jobs, (self.now + pause_s, next(self.order), job))

    @property
    def frame(self) -> Frame:
        """The cloud as it is now."""
        while self.at_frame + 1 < len(self.starts) and self.starts[self.at_frame + 1] <= self.now:
            self.at_frame += 1
        return self.frames[self.at_frame]

    # -- what is heard ------------------------------------------------------------------------------------------------

    def _letters(self) -> list[tuple[float, int, tuple[Observation, ...]]]:
        """What of the story's notifications arrives, and when: each publisher in its order, or in none at all."""
        rng, out = self.rng, []
        loss, late, twice, gap = self.loss, self.late, self.twice, self.gap
        ordered = rng.random() < 0.3
        held_until: dict[str, float] = {}
        number = 0  # keeps what arrives at one moment in order
        for said in self.story.said:
            if loss and rng.random() < loss or gap and gap[0] <= said.at <= gap[1] or said.publisher == self.mute:
                self.lost_at = said.at
                continue
            at = said.at + rng.uniform(0.001, 0.05)
            if late and rng.random() < late:
                at += rng.uniform(0.05, 25.0)
            if ordered:
                at = held_until[said.publisher] = max(at, held_until.get(said.publisher, 0.0))
            if self.restart and self.restart[0] <= at < self.restart[1]:
                at = self.restart[1] + 0.001  # the queue has kept it
            number += 1
            out.append((at, number, said.shows))
            if twice and rng.random() < twice:
                number += 1
                again = at + rng.uniform(0, 10)
                if self.restart and self.restart[0] <= again < self.restart[1]:
                    again = self.restart[1] + 0.001
                out.append((again, number, said.shows))
        out.sort()
        return out

    def _hear(self) -> None:
        """The bus says something, as `Admit` notes it; a deaf one is heard again, and what was missed is read."""
        self.fleet.heard_at["default"] = self.now
        if any(bus.deaf_from is not None for bus in self.fleet.buses()):
            self.admit((BusSeen(self.now, LIVE, "default", "heard"),))
            self._begin(self._heal())

    def _bus_away(self, begins: float, ends: float) -> Job:
        self.admit((BusSeen(self.now, LIVE, "default", "lost"),))
        yield ends - begins
        self.admit((BusSeen(self.now, LIVE, "default", "connected"),))
        yield from self._heal()

    def _heal(self) -> Job:
        while True:
            gap = _gap(self.fleet)
            if gap is None:
                return
            try:
                yield from self._whole(gap)
            except Failed:
                yield 2.0

    # -- asking -------------------------------------------------------------------------------------------------------

    def _question(self) -> Generator[float, None, tuple[Frame, float, float]]:
        """A question and its way: the frame that was read, at which moment, and when it was asked."""
        rng = self.rng
        asked, frame = self.now, self.frame
        yield rng.uniform(0.2, 1.8) * self.latency
        if self.failing and self.now < CALM_AT and rng.random() < self.failing:
            raise Failed("503")
        if rng.random() < 0.5:
            return frame, asked, asked
        return self.frame, self.now, asked

    def _list(
        self, rows_of: Callable[[Frame], list[Row]], page: Callable[[list[Row], float, float, bool], None]
    ) -> Job:
        """A list, in one page or in two that are of two moments.

        `page` is given the rows, when the first page was asked for and when this one was, and whether it is the last.
        """
        frame, _, asked = yield from self._question()
        rows = rows_of(frame)
        if len(rows) < 2 or not self.halves or self.rng.random() >= self.halves:
            page(rows, asked, asked, True)
            return
        first = rows[: self.rng.randint(1, len(rows) - 1)]
        marker = first[-1]
        page(first, asked, asked, False)
        frame, _, again = yield from self._question()
        known = frame.moves if isinstance(marker, MoveRow) else frame.servers
        if not any(row.order == marker.order for row in known):
            raise Failed("marker not found")
        page([row for row in rows_of(frame) if row.order < marker.order], asked, again, True)

    # -- jobs, as in maintd.ingest.polls ------------------------------------------------------------------------------

    def _first_look(self) -> None:
        frame, now = self.frame, self.now
        hosts = frame.hosts.values()
        self.admit([api.service_seen(h, self.story.timing, now, now, now) for h in hosts])
        self.admit([NodesSeen(now, BECAUSE_API, h.name, (h.provider,)) for h in hosts])
        rows = api.all_servers(frame)
        self.admit([api.server_seen(row, now, now) for row in rows])
        ids = frozenset(row.id for row in rows)
        self.admit(
            (
                ServersListed(now, BECAUSE_API, now, None, ids),
                ServicesListed(now, BECAUSE_API, now, frozenset(frame.hosts)),
                BaselineCompleted(now, BECAUSE_API, now),
            )
        )
        self.baselined = True

    def _services(self) -> Job:
        frame, moment, asked = yield from self._question()
        hosts = frame.hosts.values()
        seen: list[Observation] = [api.service_seen(h, self.story.timing, moment, self.now, asked) for h in hosts]
        seen.append(ServicesListed(self.now, BECAUSE_API, asked, frozenset(frame.hosts)))
        self.admit(seen)
        silent = api.silent_hosts(frame)
        if self.silent - silent:
            self.baselined = False
            self._begin(self._make_whole())
        self.silent = silent

    def _make_whole(self) -> Job:
        while not self.baselined:
            try:
                yield from self._whole(None)
            except Failed:
                yield 2.0

    def _services_forever(self) -> Job:
        while True:
            try:
                yield from self._services()
            except Failed:
                pass
            yield 30.0

    def _host(self, host: str) -> Job:
        seen: list[Observation] = []
        ids: set[str] = set()
        listed: list[ServersListed] = []

        def page(rows: list[ServerRow], first: float, asked: float, last: bool) -> None:
            seen.extend([api.server_seen(row, self.now, asked) for row in rows])
            ids.update(row.id for row in rows)
            if last:
                listed.append(ServersListed(self.now, BECAUSE_API, first, host, frozenset(ids)))

        yield from self._list(lambda frame: api.servers_on(frame, host), page)
        for server_id in sorted(set(self.fleet.servers_on(host)) - ids):
            yield from self._server(server_id)
        self.admit([*seen, *listed])
        yield from self._moves(lambda frame: api.moves(frame, host=host))

    def _server(self, server_id: str) -> Job:
        frame, _, asked = yield from self._question()
        self.admit((self._one(frame, server_id, asked),))

    def _one(self, frame: Frame, server_id: str, asked: float) -> ServerSeen:
        row = api.server(frame, server_id)
        if row is None:
            return api.server_gone(server_id, self.now, asked)
        if row.host in api.silent_hosts(frame):
            raise Failed("its cell does not answer")
        return api.server_seen(row, self.now, asked)

    def _moves(self, rows_of: Callable[[Frame], list[MoveRow]], into: list[MigrationSeen] | None = None) -> Job:
        def page(rows: list[MoveRow], first: float, asked: float, last: bool) -> None:
            seen = [api.move_seen(row, self.now, asked) for row in rows]
            self.admit(seen)
            if into is not None:
                into.extend(seen)

        yield from self._list(rows_of, page)

    def _moves_of(self, server_id: str) -> Job:
        """All migrations of one server: what is not among them has no row."""
        uuids: set[str] = set()

        def page(rows: list[MoveRow], first: float, asked: float, last: bool) -> None:
            uuids.update(row.uuid for row in rows)
            whole = (MovesListed(self.now, BECAUSE_API, first, server_id, frozenset(uuids)),) if last else ()
            self.admit([*(api.move_seen(row, self.now, asked) for row in rows), *whole])

        yield from self._list(lambda frame: api.moves(frame, server_id=server_id), page)

    def _open_moves(self) -> Job:
        """Nova takes one status a call: the lists are of different moments."""
        asked_at = self.now
        seen: list[MigrationSeen] = []
        cut = self.rng.randint(1, len(OPEN_STATUSES) - 1)
        for statuses in (OPEN_STATUSES[:cut], OPEN_STATUSES[cut:]):
            yield from self._moves(lambda frame, statuses=statuses: api.moves(frame, statuses=statuses), seen)  # type: ignore[misc]
        listed: set[str | None] = {m.migration_uuid for m in seen}
        for m in list(self.fleet.open_migrations()):
            if _unlisted(m, listed, asked_at):  # type: ignore[arg-type]
                self._suspect(m.server_id)

    def _drains_forever(self) -> Job:
        while True:
            deaf = any(bus.deaf_from is not None for bus in self.fleet.buses())
            hosts = [self.fleet.host(name) for name in sorted(self.fleet.closed_hosts())]
            for host in hosts:
                if host is not None and (deaf or (host.drain_id and not host.emptied)):
                    try:
                        yield from self._host(host.name)
                    except Failed:
                        continue
            yield 15.0 if deaf else 60.0

    def _emptied_forever(self) -> Job:
        while True:
            for name in sorted(self.fleet.closed_hosts()):
                host = self.fleet.host(name)
                if host is not None and host.emptied and self.now - self.verified_at.get(name, 0.0) >= 60.0:
                    self._want_pass(name)
            yield 15.0

    def _reconcile_forever(self) -> Job:
        while True:
            if self.baselined:
                try:
                    yield from self._reconcile()
                except Failed:
                    pass
            yield 100.0

    def _reconcile(self) -> Job:
        asked_at = self.now
        frame, _, _ = yield from self._question()
        self.admit(
            [NodesSeen(self.now, BECAUSE_API, h.name, (h.provider,)) for h in frame.hosts.values() if not h.silent]
        )
        since = self.read_before - MARGIN_S
        yield from self._servers_of(lambda frame: api.servers_changed(frame, since))
        yield from self._open_moves()
        self.read_before, self.read_all_at = self.read_all_at, asked_at

    def _servers_of(self, rows_of: Callable[[Frame], list[ServerRow]], whole: list[ServersListed] | None = None) -> Job:
        ids: set[str] = set()

        def page(rows: list[ServerRow], first: float, asked: float, last: bool) -> None:
            self.admit([api.server_seen(row, self.now, asked) for row in rows])
            ids.update(row.id for row in rows)
            if last and whole is not None:
                whole.append(ServersListed(self.now, BECAUSE_API, first, None, frozenset(ids)))

        yield from self._list(rows_of, page)

    def _whole(self, since: float | None) -> Job:
        asked_at = self.now
        yield from self._services()
        silent = self.silent
        if since is None:
            frame, _, _ = yield from self._question()
            self.admit(
                [NodesSeen(self.now, BECAUSE_API, h.name, (h.provider,)) for h in frame.hosts.values() if not h.silent]
            )
            listed: list[ServersListed] = []
            yield from self._servers_of(api.all_servers, listed)
            yield from self._services()
            if not silent and not self.silent:
                self.admit(listed)
        else:
            yield from self._servers_of(lambda frame: api.servers_changed(frame, since - MARGIN_S))
            yield from self._moves(lambda frame: api.moves(frame, since=since - MARGIN_S))
        yield from self._open_moves()
        if since is None:
            self.baselined = not silent - self.silent
        self.read_before, self.read_all_at = self.read_all_at, asked_at
        self.admit((BaselineCompleted(self.now, BECAUSE_API, asked_at),))

    # -- the ends of moves --------------------------------------------------------------------------------------------

    def _suspect(self, server_id: str, tries: int = 0) -> None:
        at = 0.0 if tries == 0 else self.now + ENDING_BACKOFF_S[min(tries, len(ENDING_BACKOFF_S) - 1)]
        self.suspects.setdefault(server_id, (tries, at))
        self._look_at_ends()

    def _look_at_ends(self) -> None:
        if not self.ending:
            self.ending = True
            self._begin(self._ends(), 0.05)

    def _ends(self) -> Job:
        """As long as a move is about to end, or somebody is suspected of having ended one, ask after it."""
        failures = 0
        while True:
            now = self.now
            found = {
                m.key: (m.server_id, (m.phase, m.verdict))
                for m in self.fleet.open_migrations()
                if m.verdict is not None or m.phase is Phase.FINISHING
            }
            for key in self.endings.keys() - found.keys():
                del self.endings[key]
            due: dict[str, None] = {}
            for key, (server_id, mark) in found.items():
                held = self.endings.get(key)
                tries, next_at = (held[1], held[2]) if held is not None and held[0] == mark else (0, 0.0)
                if next_at <= now:
                    due[server_id] = None
                    next_at = now + ENDING_BACKOFF_S[min(tries, len(ENDING_BACKOFF_S) - 1)]
                    tries += 1
                self.endings[key] = (mark, tries, next_at)
            suspects = {s: tries for s, (tries, at) in self.suspects.items() if at <= now}
            if due or suspects:
                try:
                    yield from self._ends_of(due, suspects)
                    failures = 0
                except Failed:
                    failures += 1
                    yield min(2.0**failures, 30.0)
                    continue
            elif not found and not self.suspects:
                self.ending = False
                return
            yield 0.25 if due or suspects else 1.0

    def _ends_of(self, due: Iterable[str], suspects: dict[str, int]) -> Job:
        asked = {**dict.fromkeys(due, 0), **suspects}
        for server_id in asked:
            self.suspects.pop(server_id, None)
            try:
                yield from self._moves_of(server_id)
            except Failed:
                self._suspect(server_id, suspects.get(server_id, 0) + 1)
                raise
        for server_id in sorted(asked):
            if _is_unsure(self.fleet, server_id):
                yield from self._server(server_id)
        for server_id in sorted(asked):
            if _is_still_there(self.fleet, server_id) and asked[server_id] < len(ENDING_BACKOFF_S):
                self._suspect(server_id, asked[server_id] + 1)

    # -- proofs -------------------------------------------------------------------------------------------------------

    def _want_pass(self, host: str) -> None:
        if host not in self.in_hand:
            self.in_hand.add(host)
            self._begin(self._pass(host), self.rng.uniform(0.0, 0.3))

    def _pass(self, host: str) -> Job:
        known = self.fleet.host(host)
        held = self.fleet.verification(host)
        number = (held.pass_number if held else 0) + 1
        self.verified_at[host] = self.now
        if known is None or not known.closed:
            self.in_hand.discard(host)
            return
        self.admit((PassBegun(self.now, BECAUSE_API, host, number),))
        error: str | None = None
        try:
            for whole in self._reads(host, known.nodes, number):
                if whole:
                    yield whole
                    continue
                v = self.fleet.verification(host)
                if v is None or v.begun_at is None or v.pass_number != number:
                    break
                if v.generation != v.begun_generation:
                    error = "something was seen of the host while the pass went on"
                    break
        except Failed as wrong:
            error = str(wrong)
        v = self.fleet.verification(host)
        if v is not None and v.begun_at is not None and v.pass_number == number:
            error = error or "the pass came to no end"
            self.admit(
                (PassRead(self.now, BECAUSE_API, host, number, Read.SERVICE, self.now, complete=False, error=error),)
            )
        self.in_hand.discard(host)

    def _reads(self, host: str, nodes: tuple[str, ...], number: int) -> Generator[float, None, None]:
        """The reads of a pass, in the order of `NovaApi.verify`; 0.0 is yielded after each answer."""

        def read(
            kind: Read, asked: float, found: tuple[object, ...], target: str | None = None, complete: bool = True
        ) -> PassRead:
            return PassRead(self.now, BECAUSE_API, host, number, kind, asked, target, found, complete)

        rows: dict[str, MoveRow] = {}
        here: set[str] = set()

        def moves_page(page: list[MoveRow], first: float, asked: float, last: bool) -> None:
            seen = tuple([api.move_seen(row, self.now, asked) for row in page])
            rows.update((row.uuid, row) for row in page)
            self.admit((*seen, read(Read.MIGRATIONS, asked, seen, complete=last)))

        yield from self._list(lambda frame: api.moves(frame, host=host), moves_page)
        yield 0.0
        if not nodes:
            raise Failed("no node")
        node = nodes[0]
        frame, _, asked = yield from self._question()
        service = frame.hosts.get(host)
        if service is None or service.provider != node or service.silent:
            if service is not None and not service.silent:
                self.admit((NodesSeen(self.now, BECAUSE_API, host, (service.provider,)),))
            raise Failed("the node is gone, or its cell does not answer")
        here.update(service.servers)
        self.admit((read(Read.HYPERVISOR, asked, service.servers, node),))
        yield 0.0
        ids: set[str] = set()

        def servers_page(page: list[ServerRow], first: float, asked: float, last: bool) -> None:
            seen = tuple([api.server_seen(row, self.now, asked) for row in page])
            ids.update(row.id for row in page)
            listed = (ServersListed(self.now, BECAUSE_API, first, host, frozenset(ids)),) if last else ()
            self.admit((*seen, *listed, read(Read.SERVERS, asked, seen, complete=last)))

        yield from self._list(lambda frame: api.servers_on(frame, host), servers_page)
        here |= ids
        yield 0.0
        frame, _, asked = yield from self._question()
        tree = tuple(h.provider for h in frame.hosts.values() if h.provider == node)
        self.admit((read(Read.PROVIDERS, asked, tree, node),))
        yield 0.0
        consumers: set[str] = set()
        if tree:
            frame, _, asked = yield from self._question()
            holder = next((h for h in frame.hosts.values() if h.provider == node), None)
            if holder is None:
                raise Failed("404")
            consumers.update(holder.consumers)
            self.admit((read(Read.ALLOCATIONS, asked, holder.consumers, node),))
            yield 0.0
        frame, _, asked = yield from self._question()
        holder = next((h for h in frame.hosts.values() if h.provider == node), None)
        if holder is None:
            raise Failed("404")
        self.admit((read(Read.TRAITS, asked, holder.traits, node),))
        yield 0.0
        over = RELEASED_STATUSES | {"done"}
        moving = {row.server for row in rows.values() if row.status not in over}
        for consumer in sorted(consumers - here - moving - rows.keys()):
            frame, _, asked = yield from self._question()
            one = self._one(frame, consumer, asked)
            self.admit((one, read(Read.CONSUMER, asked, (one,), consumer)))
            yield 0.0
        yield from self._list(lambda frame: api.moves(frame, host=host), moves_page)
        yield 0.0
        frame, moment, asked = yield from self._question()
        service = frame.hosts.get(host)
        seen: tuple[ServiceSeen, ...] = ()
        if service is not None:
            seen = (api.service_seen(service, self.story.timing, moment, self.now, asked),)
        self.admit((*seen, read(Read.SERVICE, asked, seen)))

    # -- the operator -------------------------------------------------------------------------------------------------

    def _operator_forever(self) -> Job:
        """Now and then somebody looks at what maintd remembers of a host, finds nothing there, and says so."""
        while True:
            for name, truth in self.frame.truth.items():
                known = self.fleet.host(name)
                remembered = {r.server_id for r in self.fleet.residue_on(name)}
                asks = bool(remembered) or (known is not None and known.history_unknown)
                if asks and not remembered & truth.here and not truth.hidden and self.rng.random() < 0.3:
                    self.admit((ResidueCleared(self.now, LIVE, name, "operator"),))
            yield 40.0

    # -- the truth ----------------------------------------------------------------------------------------------------

    def admit(self, observations: Iterable[Observation]) -> None:
        fleet = self.fleet
        for observation in observations:
            self.log.append(observation)
            outcome = reduce(fleet, observation, lambda: str(next(self.numbers)))
            fleet.apply(outcome)
            for event in outcome.events:
                self._judge(event)
        if fleet._open and not self.ending:
            for m in fleet.open_migrations():
                if m.verdict is not None or m.phase is Phase.FINISHING:
                    self._look_at_ends()
                    break

    def _judge(self, event: events.Event) -> None:
        if isinstance(event, events.HostEmptied):
            self.emptied += 1
            self.events.append((self.now, event))
            truth = self.frame.truth.get(event.host)
            if truth is None:
                return
            looked_at = self._looked_at(event.host)
            here = {
                s
                for s in truth.here
                if self._arrived(event.host, s) < looked_at and not self._unknowable(event.host, s, truth)
            }
            self.excused += len(truth.here) > len(here)
            if here:
                raise Wrong(f"{event.host} at {self.now - T0:.2f}: {self._why(event.host, here)}")
            if unwarned := self._unwarned(event, truth):
                raise Wrong(f"{event.host} at {self.now - T0:.2f}: no warning of {unwarned}")
        elif isinstance(event, (events.HostOccupied, events.HostReopened, events.ServiceDeleted)):
            self.retracted += isinstance(event, (events.HostOccupied, events.HostReopened))
            self.events.append((self.now, event))

    def _looked_at(self, host: str) -> float:
        """When the pass that has just ended asked Placement, where every arrival shows first."""
        for o in reversed(self.log):
            if isinstance(o, PassRead) and o.host == host and o.read is Read.ALLOCATIONS:
                return o.asked_at
        return self.now

    def _arrived(self, host: str, server_id: str) -> float:
        """When the server that is here now came here."""
        at = self.frame.at
        for index in range(self.at_frame, -1, -1):
            truth = self.frames[index].truth.get(host)
            if truth is None or server_id not in truth.here:
                break
            at = self.frames[index].at
        return at

    def _unknowable(self, host: str, server_id: str, truth: Truth) -> bool:
        """Whether this is the residue of a deleted server, and nothing shown since it came here connects it with this
        host; or the host has been up again, and nothing shown since the server came says that it was evacuated, how it
        was deleted, or that the host was ever down before it was shown up with the server known to be gone."""
        if server_id not in truth.hidden or api.server(self.frame, server_id) is not None:
            return False
        arrived = self._arrived(host, server_id)
        up_again_at = self._up_again_at(host, server_id)
        last_move = self._last_move(server_id)
        here = behind_its_back = False
        gone_at = lived_at = math.inf  # when it was first found gone; when the host was asked after that is up since
        for o in self.log:
            asked_at = getattr(o, "asked_at", None)
            at = asked_at if asked_at is not None else getattr(o, "emitted_at", 0.0)
            if at < arrived:
                continue
            if isinstance(o, ServerSeen) and o.server_id == server_id:
                gone_at = min(gone_at, o.seen_at if o.deleted else math.inf)
                here = here or host in (o.host, o.landing, o.source, o.destination, o.reporter)
                evacuated = o.step is not None and STEPS[o.step].kind is Kind.EVACUATION
                evacuated = evacuated and o.source in (None, host)
                behind_its_back = behind_its_back or evacuated or o.local_delete
            elif isinstance(o, MigrationSeen) and o.server_id == server_id:
                here = here or host in (o.source, o.destination)
                evacuated = o.kind is Kind.EVACUATION and o.source == host
                reverted = o.status in ("reverting", "reverted") and o.migration_uuid == last_move
                behind_its_back = behind_its_back or evacuated or reverted
            elif isinstance(o, ServiceSeen) and o.host == host:
                if o.forced_down or o.up is False:
                    behind_its_back = behind_its_back or at < lived_at
                elif o.up and at > gone_at and at >= up_again_at:
                    lived_at = min(lived_at, at)
        return not here or (up_again_at < math.inf and not behind_its_back)

    def _up_again_at(self, host: str, server_id: str) -> float:
        """From when on the host was up, after the server had become residue there; infinity if it has not been."""
        up_at = math.inf
        for index in range(self.at_frame, -1, -1):
            frame = self.frames[index]
            truth, service = frame.truth.get(host), frame.hosts.get(host)
            if truth is None or server_id not in truth.hidden:
                break
            if service is not None and not service.forced_down and service.killed_at is None:
                up_at = frame.at
        return up_at

    def _last_move(self, server_id: str) -> str | None:
        """The uuid of the last move of a server; Nova shows none of one that is deleted."""
        for index in range(self.at_frame, -1, -1):
            for row in self.frames[index].moves:
                if row.server == server_id:
                    return row.uuid
        return None

    def _unwarned(self, event: events.HostEmptied, truth: Truth) -> set[str]:
        """Servers whose failed resize left files here since the host was closed, and that the event does not name."""
        host = self.fleet.host(event.host)
        closed_at = (host.closed_at if host else None) or self.now
        rows = {m.server for m in self.frame.moves if m.status in ("error", "failed") and m.source == event.host}
        named = {note.server_id for note in event.warnings}
        return {s for s in truth.strays & rows - named - truth.hidden if self._strayed(event.host, s) > closed_at + 1.0}

    def _strayed(self, host: str, server_id: str) -> float:
        at = self.now
        for index in range(self.at_frame, -1, -1):
            truth = self.frames[index].truth.get(host)
            if truth is None or server_id not in truth.strays:
                break
            at = self.frames[index].at
        return at

    def _why(self, host: str, here: set[str]) -> str:
        frame = self.frame
        out = []
        for server_id in sorted(here):
            row = next((s for s in frame.servers if s.id == server_id), None)
            moves = [f"{m.kind} {m.status} {m.source}->{m.destination}" for m in frame.moves if m.server == server_id]
            state = f"{row.state} on {row.host}{' deleted' if row.deleted else ''}" if row else "?"
            out.append(
                f"{server_id[:8]} ({state}; {', '.join(moves)}; arrived {self._arrived(host, server_id) - T0:.2f})"
            )
        return "; ".join(out)

    def missed(self) -> list[str]:
        """Hosts that have long been closed and really empty, with nothing in the way, and were not found so."""
        frame, out = self.frame, []
        if self.is_deaf():
            return []  # rightly said to be deaf: whoever does not hear calls no host empty
        for name, host in frame.hosts.items():
            known, truth = self.fleet.host(name), frame.truth[name]
            if not (host.disabled or host.forced_down) or host.silent or truth.here:
                continue
            if host.disabled and not host.forced_down and host.killed_at is None:
                if "COMPUTE_STATUS_DISABLED" not in host.traits:
                    continue  # the scheduler has not been told
            if known is not None and (known.history_unknown or self.fleet.residue_on(name)):
                continue  # in doubt; an operator is asked to look
            nowhere = {s.id for s in frame.servers if not s.deleted and s.host is None}
            nowhere |= {m.server for m in frame.moves if m.destination is None and m.status not in RELEASED_STATUSES}
            under_way = {m.server for m in frame.moves if m.status not in RELEASED_STATUSES}
            nowhere |= {s.id for s in frame.servers if s.task_state == "migrating" and s.id not in under_way}
            if set(host.servers) - truth.here:
                continue  # Nova lists a server there that is not: a resize between cells whose end was cut off
            if nowhere & set(host.consumers):
                continue  # Placement holds the host for a build or a move that came to a stop: in doubt, too
            if known is None or not known.emptied:
                out.append(name)
        return out

    def is_deaf(self) -> bool:
        """Whether the fleet has said that the bus is deaf, and something was lost after the last thing that came."""
        deaf = any(bus.deaf_from is not None for bus in self.fleet.buses())
        return deaf and self.lost_at > self.fleet.heard_at.get("default", -math.inf)

    def unretracted(self) -> list[str]:
        """Refills of emptied hosts that stayed for long, and of which nothing was said."""
        out = []
        for at, event in self.events:
            if not isinstance(event, events.HostEmptied):
                continue
            host = event.host
            until = min(
                [when for when, e in self.events if when > at and getattr(e, "host", None) == host],
                default=self.now,
            )
            since: float | None = None
            for frame in self.frames[bisect.bisect_right(self.starts, at) - 1 :]:
                truth, service = frame.truth.get(host), frame.hosts.get(host)
                closed = service is not None and (service.disabled or service.forced_down) and not service.silent
                there = truth is not None and bool(truth.here - truth.hidden)
                if closed and there:
                    since = frame.at if since is None else since
                    continue
                if since is not None and min(frame.at, until) - max(since, at) > RETRACTED_IN_S:
                    break
                since = None
                if frame.at > until:
                    break
            if since is not None and until - max(since, at) > RETRACTED_IN_S:
                out.append(f"{host} since {since - T0:.1f}, emptied at {at - T0:.1f}")
        return out
