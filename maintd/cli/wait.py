"""wait: until hosts are empty, with an exit code for every other way it can end.

It asks the API once a second (less often for many hosts) and prints what changes. A daemon that is restarted meanwhile
is waited for; one that stays away, or that runs but cannot see, ends the waiting with a code of its own, because
"not empty yet" would then be a guess. So would be "empty", and "stalled": what the store remembers from before a
restart, or from before a bus fell silent, is no answer until the cloud was read again.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from maintd.cli.common import Commands, Exit, Usage, ask_options, client, command
from maintd.client import ApiError, Client, Unreachable
from maintd.clock import Clock, SystemClock
from maintd.terminal import clean, complain, print_json, say, utc

POLL_EVERY_S: Final = 1.0
POLL_PER_HOST_S: Final = 0.05
"""With more than twenty hosts the rounds get longer, so that the API answers twenty requests a second at most."""

PATIENCE_S: Final = 30.0
"""How long the daemon may be unreachable in the midst of waiting."""

UNREAD: Final = "maintd has not read the cloud yet: which hosts there are, it will see."

SIGHT_PATIENCE_S: Final = 60.0
"""How long maintd may be without sight before that is the answer."""


def add(commands: Commands) -> None:
    wait = command(
        commands, "wait", "wait until hosts are empty; an exit code for everything else",
        do_wait,
        description="Wait until every host (--any: one of them) is proven empty of Nova servers.",
        epilog="exit codes: 0 empty; 1 a host was removed from Nova; 2 unknown host, or not for you to see;\n"
        "3 stalled (--fail-on-stall); 4 timed out; 5 maintd lost sight, or refuses your token by now; "
        "6 no maintd answers\n"
        "example:\n  maintd wait cmp-17 cmp-18 --timeout 3600 --fail-on-stall",
    )  # fmt: skip
    wait.add_argument("hosts", metavar="HOST", nargs="+")
    which = wait.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="until all are empty (the default)")
    which.add_argument("--any", action="store_true", help="until one is empty")
    wait.add_argument("--timeout", metavar="S", type=float, help="give up after so many seconds (exit code 4)")
    wait.add_argument(
        "--fail-on-stall", action="store_true", help="end with exit code 3 once a drain, or a migration off it, stalls"
    )
    ask_options(wait)


def do_wait(args: argparse.Namespace) -> int:
    if args.timeout is not None and not args.timeout >= 0:
        raise Usage("--timeout is a number of seconds, 0 or more.")
    waiting = Waiting(
        client(args), tuple(dict.fromkeys(args.hosts)), any_of=args.any, timeout_s=args.timeout,
        fail_on_stall=args.fail_on_stall, as_json=args.json,
    )  # fmt: skip
    return waiting.run()


@dataclass
class Waiting:
    """One waiting. Time is handed in, so that a test can wait for hours."""

    api: Client
    hosts: Sequence[str]
    any_of: bool = False
    timeout_s: float | None = None
    fail_on_stall: bool = False
    as_json: bool = False
    clock: Clock = field(default_factory=SystemClock)
    sleep: Callable[[float], None] = time.sleep
    _said: dict[str, str] = field(default_factory=dict)
    _blind_since: float | None = None
    _away_since: float | None = None
    _answered: bool = False

    def run(self) -> int:
        """Wait; the exit code."""
        started = self.clock.monotonic()
        every_s = max(POLL_EVERY_S, POLL_PER_HOST_S * len(self.hosts))
        while True:
            now = self.clock.monotonic()
            code = self._round(now)
            if code is not None:
                return code
            if self.timeout_s is not None:
                left_s = self.timeout_s - (now - started)
                if left_s <= 0:
                    complain(f"maintd: Not empty after {self.timeout_s:g} s: {', '.join(map(clean, self.hosts))}.")
                    return Exit.TIMED_OUT
                self.sleep(min(every_s, left_s))
            else:
                self.sleep(every_s)

    def _round(self, now: float) -> int | None:
        """Ask about everything once; an exit code if that ends the waiting.

        Sight must have been there before the hosts were asked and after: else what they say may be an old memory.
        """
        before: Mapping[str, Any] | None = None
        try:
            before = self.api.get("status")
            found = {name: self._ask(name) for name in self.hosts}
            status = self.api.get("status")
        except Unreachable as wrong:
            if not self._answered:
                raise
            return self._away(now, wrong)
        except ApiError as wrong:
            self._answered = True
            if wrong.status >= 500:
                return self._away(now, wrong)
            self._away_since = None
            if wrong.status == 404:
                if before is None or not _is_unread(before):
                    raise
                return self._sight(now, before, UNREAD)
            if not self._said:
                raise Usage(str(wrong)) from wrong
            complain(f"maintd: {clean(wrong)}")
            return Exit.LOST_SIGHT
        self._away_since, self._answered = None, True
        if _is_unread(before) and None in found.values():
            return self._sight(now, status, UNREAD)  # a new database: what was known once will be known again
        for name, host in found.items():
            self._tell(name, host)
        gone = [name for name, host in found.items() if host is None]
        if gone and (not self.any_of or len(gone) == len(found)):
            complain(f"maintd: {clean(gone[0])} was removed from Nova while it was waited for.")
            return Exit.FAILURE
        empty = [name for name, host in found.items() if host is not None and host["empty"]]
        if len(empty) == len(found) or (self.any_of and empty):
            doubt = _doubt(before, found.values()) or _doubt(status, found.values())
            return Exit.YES if doubt is None else self._sight(now, status, doubt)
        stalled = [name for name, host in found.items() if host is not None and _stalled(host)]
        if self.fail_on_stall and stalled and (not self.any_of or len(stalled) == len(found)):
            stuck = [found[name] for name in stalled]
            doubt = _doubt(before, stuck) or _doubt(status, stuck)
            if doubt is not None:
                return self._sight(now, status, doubt)  # it may be over since
            complain(f"maintd: {clean(stalled[0])} stalls; see: maintd why {clean(stalled[0])}")
            return Exit.STALLED
        unknown = [host for host in found.values() if host is not None and host["closed"] and host["empty"] is None]
        return self._sight(now, status, status["lost_sight"] or (_doubt(status, unknown) if unknown else None))

    def _ask(self, name: str) -> dict[str, Any] | None:
        """A host; None if it is no more. One that was never there is the operator's mistake."""
        try:
            return self.api.get("hosts", name)
        except ApiError as wrong:
            if wrong.status == 404 and name in self._said:
                return None
            raise

    def _away(self, now: float, wrong: Exception) -> int | None:
        if self._away_since is None:
            self._away_since = now
            complain(f"maintd: {clean(wrong)} Asking again for {PATIENCE_S:.0f} s.")
        elif now - self._away_since >= PATIENCE_S:
            complain(f"maintd: {clean(wrong)}")
            return Exit.UNREACHABLE
        return None

    def _sight(self, now: float, status: Mapping[str, Any], reason: str | None) -> int | None:
        if reason is None:
            self._blind_since = None
            return None
        if self._blind_since is None:
            self._blind_since = now
            complain(f"maintd: {clean(reason)}")
        if status["cloud"].get("configured") is False or now - self._blind_since >= SIGHT_PATIENCE_S:
            complain("maintd: Lost sight: whether the host is empty cannot be known.")
            return Exit.LOST_SIGHT
        return None

    def _tell(self, name: str, host: Mapping[str, Any] | None) -> None:
        summary = summarise(host)
        if self._said.get(name) == summary:
            return
        self._said[name] = summary
        if self.as_json:
            row = {"at": utc(self.clock.now()), "host": name, "empty": bool(host and host["empty"])}
            if host is not None:
                row["blockers"] = dict(Counter(b["kind"] for b in host["blockers"]))
                row["stalled"] = _stalled(host)
            print_json(row, lines=True)
        else:
            say(f"{utc(self.clock.now())}  {clean(name)}: {summary}")
        import sys

        sys.stdout.flush()


def summarise(host: Mapping[str, Any] | None) -> str:
    """How a host stands, on one line; a change of it is worth a line."""
    if host is None:
        return "removed from Nova"
    if host["empty"]:
        return f"empty of Nova servers, proven {utc(host['emptied_at'])}"
    if not host["closed"]:
        return "open: its compute service is enabled, so it cannot be called empty"
    if host["empty"] is None:
        return "unknown: the bus that speaks for it is not heard, or no maintd watches"
    kinds = Counter(clean(b["kind"]) for b in host["blockers"])
    text = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    drain = host["drain"]
    return text + ("; the drain has STALLED" if drain and drain["stalled_at"] and not drain["ended_at"] else "")


def _doubt(status: Mapping[str, Any], hosts: Iterable[Mapping[str, Any] | None]) -> str | None:
    """Why an `empty` or a stall of these hosts cannot be relied upon now, as a sentence; None where it can."""
    if status["lost_sight"] is not None:
        return str(status["lost_sight"])
    since, read = status.get("leading_since_at"), status["baselined_at"]
    if since is None:
        return "This maintd does not lead, so it cannot vouch for what the leader knows: ask the one that does."
    if read is None or not datetime.fromisoformat(read) > datetime.fromisoformat(since):
        return "maintd has begun anew and has not read the whole cloud since: what it knows may be old."
    states = status.get("bus_states") or {}
    asked = [host for host in hosts if host is not None]
    for name, state in states.items():
        if state != "connected" and any(_speaks_for(name, host, states) for host in asked):
            return f"Bus {name} is {state}: what happens meanwhile is not heard."
    for bus in status["buses"]:
        sick = bus["blind_from"] is not None or not bus["connected"]
        if bus["bus"] in states and sick and any(_speaks_for(bus["bus"], host, states) for host in asked):
            return f"Bus {bus['bus']} was not heard for a while, and what was missed is not made up for yet."
    return None


def _speaks_for(bus: str, host: Mapping[str, Any], buses: Collection[str]) -> bool:
    """Whether a host's emptiness rests on this bus (`maintd.domain.buses.unheard` says the same of the fleet)."""
    down = host["forced_down"] or host["up"] is False
    return down or host["heard_on"] not in buses or host["heard_on"] == bus


def _is_unread(status: Mapping[str, Any]) -> bool:
    """Whether maintd does not know yet which hosts there are, and will."""
    return status["baselined_at"] is None and status["cloud"].get("configured") is not False


def _stalled(host: Mapping[str, Any]) -> bool:
    drain = host["drain"]
    if drain and drain["stalled_at"] and not drain["ended_at"]:
        return True
    return any(m["stalled"] and m["source"] == host["host"] and not m["ended_at"] for m in host["migrations"])
