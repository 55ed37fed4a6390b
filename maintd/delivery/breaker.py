"""How much of what there is each endpoint may take, so that nobody slows anybody.

There is a number of requests that may be in flight at once, for one endpoint and in all. Whoever answers at once gives
its place back at once; whoever hangs keeps it until its time is up. So an endpoint gets fewer places by how it behaves:

- it *fails*: one request at a time, until one is taken;
- nothing *answers* there (no connection, no answer in time): and a pause after each try, growing to `PAUSE_MOST_S`;
- it takes what it gets, but *slowly*, or lets one wait at this moment: two at a time, until it is quick again.

These, the *suspects*, get half of all places together, taking turns: the other half is for those that answer, even if
all suspects hang at once. Where nothing is known yet an endpoint is trusted.

Another limit is for ourselves. Requests that are begun all at once are all slow, by our own doing; so only so many may
be under way that have not had a second yet. Those that hang have, and hold up nobody by it.

A pause is shorter than what a retry waits for, so it delays nothing by much; how often one event is tried is said by
`retry`, not here. Kept in memory: each controller learns by itself, in one request. Pure: times are arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SLOW_S: Final = 2.0
"""An endpoint whose answer takes this long is slow."""
WHILE_SLOW: Final = 2
YOUNG_S: Final = 1.0
PAUSE_S: Final = 0.5
PAUSE_MOST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much at once: `per_endpoint` requests of one endpoint, `in_all` of all of them, and `young` of those that
    were begun less than `YOUNG_S` ago. `young` leaves room beside those that have just begun to hang: where a tenth of
    all endpoints does, they are some 75 in any second."""

    per_endpoint: int = 8
    in_all: int = 1024
    young: int = 512


@dataclass(frozen=True, slots=True)
class Request:
    """One that is in flight, to whom, and since when (on the clock that all times here are of)."""

    endpoint: str
    since: float


@dataclass(slots=True)
class _Suspect:
    """`failing` and `silent` count failures, and those without an answer, since the last success."""

    failing: int = 0
    silent: int = 0
    pauses_until: float = 0.0


class Breaker:
    """What each endpoint may have in flight, by how its attempts have ended."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._suspects: dict[str, _Suspect] = {}
        self._turn = 0

    def ended(self, endpoint: str, *, delivered: bool, answered: bool, took_s: float, now: float) -> None:
        """An attempt has ended. `answered`: somebody was there, whatever they said."""
        if delivered and took_s < SLOW_S:
            self._suspects.pop(endpoint, None)
            return
        known = self._suspects.setdefault(endpoint, _Suspect())
        if delivered:
            known.failing = known.silent = 0
            known.pauses_until = 0.0
        else:
            known.failing += 1
            known.silent = 0 if answered else known.silent + 1
            pause_s = min(PAUSE_S * 2 ** min(known.silent - 1, 10), PAUSE_MOST_S) if known.silent else 0.0
            known.pauses_until = now + pause_s

    def forget(self, endpoint: str) -> None:
        """Trust an endpoint as if nothing were known of it: it is another one now, or gone."""
        self._suspects.pop(endpoint, None)

    def free(self, in_flight: Iterable[Request], now: float) -> int:
        """How many more requests may be begun now, to whomever."""
        since = [request.since for request in in_flight]
        young = sum(now - at < YOUNG_S for at in since)
        return max(min(self._limits.in_all - len(since), self._limits.young - young), 0)

    def room(self, endpoints: Iterable[str], in_flight: Iterable[Request], now: float) -> dict[str, int]:
        """How many more each of these endpoints may have in flight; the full ones are left out."""
        self._turn += 1
        used: dict[str, int] = dict.fromkeys(endpoints, 0)
        waiting: set[str] = set()
        for request in in_flight:
            if request.endpoint in used:
                used[request.endpoint] += 1
                if now - request.since >= YOUNG_S:
                    waiting.add(request.endpoint)
        room: dict[str, int] = {}
        suspects: list[str] = []
        taken = 0
        for name, has in used.items():
            if name in self._suspects or name in waiting:
                suspects.append(name)
                taken += has
            elif has < self._limits.per_endpoint:
                room[name] = self._limits.per_endpoint - has
        left = max(self._limits.in_all // 2, 1) - taken
        start = self._turn % len(suspects) if suspects else 0
        for name in suspects[start:] + suspects[:start]:
            if left <= 0:
                break
            known = self._suspects.get(name, _TRUSTED)
            may = min(1 if known.failing else WHILE_SLOW, self._limits.per_endpoint) - used[name]
            if may > 0 and known.pauses_until <= now:
                room[name] = min(may, left)
                left -= room[name]
        return room

    def next_end_of_pause(self, now: float) -> float | None:
        """When the next endpoint may be tried again, or None."""
        return min((one.pauses_until for one in self._suspects.values() if one.pauses_until > now), default=None)


_TRUSTED: Final = _Suspect()
