"""Looks at a host again and again, so that it can be said afterwards until when something was on it.

Two threads with connections of their own: one asks Placement who holds allocations, the other asks Nova which servers
(soft-deleted and hidden ones too) and which open migrations there are. A sample is true of some moment between asking
and answer, no more: what was held in a sample was held at or after `asked_at`; what was free in one was free at or
before `answered_at`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.acceptance.cloud import FINAL, PLACEMENT, Cloud


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look found. Times are seconds since the epoch; `held` names servers, migrations and consumers."""

    what: str  # nova or placement
    asked_at: float
    answered_at: float
    held: frozenset[str]


class Watcher:
    """Watches from `start` to `stop`. `per_second` bounds how often; a slow cloud is looked at less often."""

    def __init__(self, make_cloud: Callable[[], Cloud], host: str, nodes: list[str], per_second: float = 10.0) -> None:
        self.host, self.nodes = host, nodes
        self.samples: list[Sample] = []
        self.errors: list[str] = []
        self._make_cloud = make_cloud
        self._every_s = 1.0 / per_second
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self) -> Watcher:
        for what, look, idle in (("placement", self._placement, 0.0), ("nova", self._nova, 1.0)):
            cloud = self._make_cloud()
            thread = threading.Thread(
                target=self._look_forever, args=(what, look, cloud, idle), name=f"watch-{what}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30.0)

    def _look_forever(self, what: str, look: Callable[[Cloud], set[str]], cloud: Cloud, idle: float) -> None:
        """`idle`: rest at least so many times as long as a look took, to leave Nova some room."""
        while not self._stopping.is_set():
            asked_at = time.time()
            try:
                held = look(cloud)
            except Exception as wrong:  # whatever the SDK raises; a look that failed says nothing about the host
                with self._lock:
                    self.errors.append(f"{what}: {wrong}")
                self._stopping.wait(self._every_s)
                continue
            answered_at = time.time()
            with self._lock:
                self.samples.append(Sample(what, asked_at, answered_at, frozenset(held)))
            took_s = answered_at - asked_at
            self._stopping.wait(max(self._every_s - took_s, idle * took_s, 0.0))

    def _placement(self, cloud: Cloud) -> set[str]:
        held: set[str] = set()
        for provider in self._tree(cloud):
            held |= cloud.get(f"/resource_providers/{provider}/allocations", "1.28", PLACEMENT)["allocations"].keys()
        return held

    def _tree(self, cloud: Cloud) -> list[str]:
        """The host's providers, looked up once: a tree does not change while its host is drained."""
        found: list[str] | None = getattr(self, "_providers", None)
        if found is None:
            found = [provider for node in self.nodes for provider in cloud.providers(node)]
            self._providers = found
        return found

    def _nova(self, cloud: Cloud) -> set[str]:
        held: set[str] = set()
        rows = cloud.get(f"/os-migrations?host={self.host}", "2.80")["migrations"]
        for row in rows:
            done_elsewhere = row["status"] == "done" and row["source_compute"] != self.host
            if row["status"] not in FINAL and not done_elsewhere:
                held.add(f"migration {row['uuid']} ({row['status']})")
        for node in self.nodes:
            hypervisor = cloud.get(f"/os-hypervisors/{node}?with_servers=true", "2.75")["hypervisor"]
            held |= {f"server {row['uuid']}" for row in hypervisor.get("servers") or ()}
        return held

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def of(self, what: str) -> list[Sample]:
        with self._lock:
            return [s for s in self.samples if s.what == what]

    def freed(self, before: float) -> tuple[float, float] | None:
        """When the last allocation was freed before a moment: not before the first time, not after the second.

        None when Placement was never seen to hold anything, or never seen free, before then.
        """
        last: Sample | None = None
        first: Sample | None = None
        for sample in self.of("placement"):
            if sample.asked_at > before:
                break
            if sample.held:
                last, first = sample, None
            elif first is None:
                first = sample
        return (last.asked_at, first.answered_at) if last is not None and first is not None else None

    def held_between(self, begin: float, end: float) -> list[Sample]:
        """Samples wholly within a time that found something on the host."""
        with self._lock:
            return [s for s in self.samples if s.held and s.asked_at >= begin and s.answered_at <= end]
