"""A request on its way through the simulated services, and the ways in which they can be made to misbehave."""

from __future__ import annotations

import fnmatch
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from maintd.simulator.notifications import Request, seconds_text
from maintd.simulator.rows import Refused

Version = tuple[int, int]
Query = list[tuple[str, str]]

PAGE = 1000
COMPUTE_MAX: Version = (2, 104)
PLACEMENT_MAX: Version = (1, 39)
REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    300: "Multiple Choices",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(slots=True)
class Fault:
    """One way to misbehave, for requests whose service and path match (`path` is a glob of path and query).

    `slow_s` waits first; `status` answers so; `cut` sends half of the body and hangs up. `times` is how often (None:
    until removed); `skip` lets so many matching requests pass unharmed first.
    """

    service: str = "*"
    path: str = "*"
    method: str = "*"
    slow_s: float = 0.0
    status: int | None = None
    cut: bool = False
    times: int | None = None
    skip: int = 0


@dataclass(slots=True)
class Faults:
    """Everything that is wrong with the service just now; change it at any time."""

    active: list[Fault] = field(default_factory=list)
    drop_host_filter: bool = False
    hide_host_fields: bool = False
    compute_max: Version = COMPUTE_MAX
    placement_max: Version = PLACEMENT_MAX
    max_limit: int = PAGE
    clock_ahead_s: float = 0.0
    """By how much the clock is ahead that answers show as their Date."""
    release: threading.Event = field(default_factory=threading.Event)

    def add(self, **options: Any) -> Fault:
        """A new fault; `remove` takes it away again."""
        fault = Fault(**options)
        self.active.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        if fault in self.active:
            self.active.remove(fault)

    def clear(self) -> None:
        """Well again, and whoever is being kept waiting is answered at once."""
        self.active.clear()
        self.clock_ahead_s = 0.0
        self.drop_host_filter = self.hide_host_fields = False
        self.compute_max, self.placement_max, self.max_limit = COMPUTE_MAX, PLACEMENT_MAX, PAGE
        self.release.set()
        self.release = threading.Event()

    def match(self, service: str, method: str, target: str) -> Fault | None:
        for fault in list(self.active):
            if (
                fnmatch.fnmatch(service, fault.service)
                and fnmatch.fnmatch(method, fault.method)
                and fnmatch.fnmatch(target, fault.path)
            ):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.remove(fault)
                return fault
        return None


@dataclass(slots=True)
class Call:
    """A request on its way through: what a handler needs to know of it."""

    method: str
    path: str
    query: Query
    body: Any
    version: Version
    base: str
    request: Request
    headers: list[tuple[str, str]] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """The last value of a parameter, as Nova takes it where it expects only one."""
        found = None
        for key, value in self.query:
            if key == name:
                found = value
        return found

    def flag(self, name: str) -> bool:
        value = self.one(name)
        return value is not None and value.lower() in ("1", "true", "t", "yes", "on", "y")


Answer = tuple[int, Any]
Handler = Callable[..., Answer]
Routes = list[tuple[str, re.Pattern[str], Handler]]
IDENT = r"([^/?]+)"


def routes(*table: tuple[str, str, Handler]) -> Routes:
    """Rows of method, path (a pattern) and handler, made ready for `dispatch`."""
    return [(method, re.compile(f"^{pattern}/?$"), handler) for method, pattern, handler in table]


def dispatch(table: Routes, call: Call, path: str) -> Answer:
    """Hand a call to whoever serves its path and method. Raises `Refused` 404 when nobody serves the path."""
    known = False
    for method, pattern, handler in table:
        found = pattern.match(path)
        if found is not None:
            known = True
            if method == call.method:
                return handler(call, *found.groups())
    if known:
        return 405, {"badMethod": {"code": 405, "message": "Method not allowed"}}
    raise Refused(404, "The resource could not be found.")


def row_time(at: float | None) -> str | None:
    """A row's time as most lists give it: microseconds that are always zero, and no zone."""
    text = seconds_text(at)
    return None if text is None else text[:-1] + ".000000"
