"""`maintd prove`: is a host empty, asked of Nova afresh, with no daemon, no bus and no database.

It is the daemon's own path in small: the same passes over the same API, the same normaliser, the same reducer, over a
fleet that begins with nothing and is thrown away. So it is as strict as the daemon: two passes `settle_s` apart must
agree. What it lacks is memory: servers that were evacuated and deleted leave no trace in Nova (facts 2.6), and a host
that is down at first sight is therefore not called empty.

It changes nothing anywhere.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from maintd.clock import Clock, SystemClock
from maintd.config import Config
from maintd.domain import emptiness
from maintd.domain.events import wire
from maintd.domain.fleet import Fleet
from maintd.domain.model import Blocker, Knowledge, Note, Policy, ProofRead
from maintd.domain.observations import ServiceSeen
from maintd.errors import OperatorError
from maintd.ingest.admit import Admission
from maintd.ingest.polls import Polls
from maintd.nova.answers import normalise_answer
from maintd.nova.api import NovaApi
from maintd.terminal import clean, complain, print_json, say, utc

NO_MEMORY = "no memory: this asks only what Nova knows now; what was evacuated and then deleted has left no trace there"
SETTLING = frozenset({"verifying"})
MAX_PASSES = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one host. `error`: why nothing could be found; `known` False: Nova has no such host."""

    host: str
    known: bool = True
    closed: bool = False
    empty: bool = False
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[Note, ...] = ()
    proof: tuple[ProofRead, ...] = ()
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it; the shapes are those of `maintd.host.emptied`."""
        return {
            "host": self.host,
            "known": self.known,
            "closed": self.closed,
            "empty": self.empty,
            "scope": "nova",
            "memory_since": None,
            "blockers": wire(self.blockers),
            "warnings": wire(self.warnings),
            "proof": wire(self.proof),
            "error": self.error,
        }


def prove(
    api: NovaApi,
    hosts: Sequence[str],
    policy: Policy,
    clock: Clock,
    wait: Callable[[float], object],
    pace: Callable[[str | None], bool] | None = None,
) -> tuple[Verdict, ...]:
    """Verify hosts, twice each where the first pass finds one empty. Never raises for what Nova does."""
    fleet = Fleet(policy)
    fleet.put(Knowledge(memory_since=clock.now()))
    numbers = itertools.count(1)
    door = Admission(fleet, clock=clock, ids=lambda: f"{next(numbers):012d}", installation="prove")
    polls = Polls(api, door, clock, has_bus=False, pace=pace)
    verdicts = {host: _first_look(api, door, host) for host in hosts}
    open_ = [host for host in hosts if verdicts[host].known and verdicts[host].error is None]
    for _ in range(MAX_PASSES):
        again: list[str] = []
        for host in open_:
            outcome = polls.verify(host)
            error = polls.errors().get("verify") if outcome == "spoilt" else None
            if outcome == "disturbed":
                error = "something happened on the host during every pass"
            verdicts[host] = _verdict(fleet, host, clock.now(), error)
            if outcome == "disturbed" or (outcome == "whole" and _settling(verdicts[host])):
                again.append(host)
        moments = [v.verify_at for v in map(fleet.verification, again) if v is not None and v.verify_at is not None]
        if not again:
            break
        wait(max(0.0, max(moments, default=clock.now() + policy.settle_s) - clock.now()))
        open_ = again
    return tuple(verdicts[host] for host in hosts)


def _first_look(api: NovaApi, door: Admission, host: str) -> Verdict:
    """The host's compute service: is there one at all? And what is on the host: else the first pass, finding servers
    that the fleet has not heard of, would be disturbed by what it finds itself."""
    answer = api.service(host)
    if answer.error is not None:
        return Verdict(host, error=answer.error)
    seen = [o for o in normalise_answer(answer) if isinstance(o, ServiceSeen) and o.host == host]
    if not seen:
        return Verdict(host, known=False)
    door.admit(seen)
    for answers in (api.servers(host), api.migrations_of_host(host)):
        for answer in answers:
            if answer.error is not None:
                return Verdict(host, error=answer.error)
            door.admit_chunks(normalise_answer(answer))
    return Verdict(host)


def _settling(verdict: Verdict) -> bool:
    return not verdict.empty and {b.kind for b in verdict.blockers} <= SETTLING


def _verdict(fleet: Fleet, host: str, now: float, error: str | None) -> Verdict:
    slice_ = fleet.slice(host)
    if slice_ is None:
        return Verdict(host, known=False)
    held = slice_.host
    finding = held.finding
    if error is not None or finding is None:
        return Verdict(host, closed=held.closed, error=error or "the pass came to no end")
    return Verdict(
        host,
        closed=held.closed,
        empty=held.emptied,
        blockers=() if held.emptied else emptiness.blockers(slice_, held, fleet.policy, now),
        warnings=finding.warnings,
        proof=finding.proof,
    )


def prove_hosts(config: Config, hosts: Sequence[str], *, as_json: bool) -> int:
    """The command: 0 all are empty, 3 at least one is not, 2 Nova knows no such host, 1 Nova cannot be asked.

    Raises OperatorError where the configuration names no cloud, or one that cannot be used.
    """
    if config.cloud is None:
        raise OperatorError("There is no cloud to ask: name one with --cloud, or configure [cloud].")
    clock = SystemClock()
    policy = Policy(
        settle_s=config.drain.settle_s,
        reason_match=config.drain.reason_match,
        accept_residue=config.drain.accept_residue,
        has_cloud=True,
        has_bus=False,
    )
    verdicts = prove(NovaApi(config.cloud, clock), hosts, policy, clock, threading.Event().wait)
    if as_json:
        print_json({"hosts": [verdict.as_dict() for verdict in verdicts]})
    else:
        for verdict in verdicts:
            tell(verdict)
        if any(verdict.known and verdict.error is None for verdict in verdicts):
            say(f"\n{NO_MEMORY}.")
    return exit_code(verdicts)


def exit_code(verdicts: Sequence[Verdict]) -> int:
    """The worst of them, as a script must read it."""
    if any(not verdict.known for verdict in verdicts):
        return 2
    if any(verdict.error is not None for verdict in verdicts):
        return 1
    return 0 if all(verdict.empty for verdict in verdicts) else 3


def tell(verdict: Verdict) -> None:
    """One host's verdict, for people."""
    host = clean(verdict.host)
    if not verdict.known:
        complain(f"Nova knows no compute service on a host named {host}; see: openstack compute service list")
        return
    if verdict.error is not None:
        complain(f"{host} could not be verified: {clean(verdict.error)}")
        return
    if verdict.empty:
        say(f"{host} is empty of Nova servers. The proof:")
    else:
        say(f"{host} is {'not empty' if verdict.closed else 'open, and so not provably empty'}:")
    for blocker in verdict.blockers:
        server = f"  server {clean(blocker.server_id)}" if blocker.server_id else ""
        say(f"  {blocker.kind}{server}  {clean(blocker.detail or '')}".rstrip())
        if blocker.remedy:
            say(f"      try: {clean(blocker.remedy)}")
    for read in verdict.proof if verdict.empty else ():
        say(f"  pass {read.pass_}  {utc(read.at)}  {clean(read.read)}: {read.count}")
    for note in verdict.warnings:
        server = f"  server {clean(note.server_id)}" if note.server_id else ""
        say(f"  worth knowing: {note.kind}{server}  {clean(note.detail or '')}".rstrip())
