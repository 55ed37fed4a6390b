"""What was asked of the simulated cloud: how many calls of which kind, how many in the worst second, how many bytes.

Counted where they arrive, so that nothing the daemon believes of itself goes into it. Calls of Keystone, and the
discovery of versions, are no load on Nova or Placement and are left out; so are the operator's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from maintd.simulator.rest import Seen

_IDENT = re.compile(r"/[0-9a-f]{8}-[0-9a-f-]{27}")
_TOLD_APART = ("status", "changes-since", "host", "instance_uuid", "in_tree")
"""Filters that make another question of a list."""


def kind_of(seen: Seen) -> str | None:
    """What kind of question a request is, without the ids in it; None where it is none of Nova or Placement."""
    if seen.service not in ("compute", "placement") or seen.method != "GET":
        return None
    path, _, query = seen.target.partition("?")
    path = _IDENT.sub("/ID", path.removeprefix("/v2.1"))
    if path in ("", "/"):
        return None
    names = {name for name, _ in parse_qsl(query)}
    filters = "&".join(name for name in _TOLD_APART if name in names)
    return path + (f"?{filters}" if filters else "")


@dataclass(frozen=True, slots=True)
class Tally:
    """Calls by kind, most in any second and any ten seconds (sliding), mean a second over `seconds`, bytes answered."""

    count: int
    seconds: float
    kinds: dict[str, int]
    most_in_1_s: int
    most_in_10_s: int
    size: int

    @property
    def mean(self) -> float:
        return self.count / self.seconds if self.seconds > 0 else 0.0

    def numbers(self) -> dict[str, Any]:
        """For the machine-readable results."""
        return {
            "calls": self.count,
            "seconds": round(self.seconds, 1),
            "calls_per_s_mean": round(self.mean, 2),
            "most_in_1_s": self.most_in_1_s,
            "most_in_10_s": self.most_in_10_s,
            "bytes": self.size,
            "kinds": self.kinds,
        }


def tally(seen: Iterable[Seen], since: float, until: float) -> Tally:
    """Count what came in from one moment to another (the machine's time)."""
    kinds: Counter[str] = Counter()
    moments: list[float] = []
    size = 0
    for one in seen:
        kind = kind_of(one)
        if kind is not None and since <= one.at < until:
            kinds[kind] += 1
            moments.append(one.at)
            size += one.size
    moments.sort()
    return Tally(len(moments), until - since, dict(kinds.most_common()), most(moments, 1.0), most(moments, 10.0), size)


def most(moments: Sequence[float], window_s: float) -> int:
    """The most moments that lie in any window of so many seconds; they are in order."""
    first = greatest = 0
    for last, at in enumerate(moments):
        while at - moments[first] >= window_s:
            first += 1
        greatest = max(greatest, last - first + 1)
    return greatest
