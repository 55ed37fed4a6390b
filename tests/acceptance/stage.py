"""What every story stands on: the cloud, the maintd under test, the receiver, the servers made, and how to leave clean.

A `Stage` remembers all that it changed (servers made, hosts closed, computes stopped) and undoes it in `sweep`,
whatever became of the story.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.acceptance import judge
from tests.acceptance.cloud import PLACEMENT, Cloud, CloudSays, Sentence, until
from tests.acceptance.judge import Facts
from tests.acceptance.receiver import Heard, Receiver
from tests.acceptance.subject import INSTALLATION, Maintd
from tests.acceptance.watcher import Watcher

DISABLED_TRAIT = "COMPUTE_STATUS_DISABLED"


@dataclass(frozen=True, slots=True)
class Options:
    """How the story is to be told. Durations are seconds."""

    cloud: str
    host: str | None = None
    image: str | None = None
    flavor: str | None = None
    network: str = "none"
    servers: int = 3
    settle_s: float = 15.0
    patience_s: float = 600.0
    per_second: float = 10.0
    stop_compute: str | None = None
    start_compute: str | None = None


class Fault(Exception):
    """The story cannot go on, because something that had to come did not."""


class Stage:
    """One run of the runner. `say` tells what is done; `make_maintd` makes a maintd with these [drain] options."""

    def __init__(self, options: Options, receiver: Receiver, make_maintd: Callable[[dict[str, str]], Maintd]) -> None:
        self.options = options
        self.receiver = receiver
        self.cloud = Cloud(options.cloud)
        self.maintd: Maintd | None = None
        self.faults: list[str] = []  # of maintd's ends and logs, whatever the story
        self._make_maintd = make_maintd
        self._drain: dict[str, str] = {}
        self._run = secrets.token_hex(3)
        self._count = 0
        self._made: dict[str, str] = {}
        self._closed: set[str] = set()
        self._stopped: set[str] = set()
        self._watchers: list[Watcher] = []
        self._from = 0  # what was heard before belongs to the story before
        self._started_at = 0  # what was heard before was said by another maintd
        self._began = time.monotonic()
        self._image = self.cloud.image(options.image)
        self._flavor = self.cloud.flavor(options.flavor)
        self._network = self.cloud.network(options.network)
        self.host = self._choose_host()

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:7.1f}s  {text}", flush=True)

    # -- before -------------------------------------------------------------------------------------------------------

    def _choose_host(self) -> str:
        services = self.cloud.services()
        usable = [s["host"] for s in services if s["status"] == "enabled" and s["state"] == "up"]
        wanted = self.options.host
        if wanted is not None:
            service = self.cloud.service(wanted)
            if wanted not in usable:
                raise Sentence(f"{wanted} is {service['status']} and {service['state']}; it must be enabled and up.")
        if len(usable) < 2:
            raise Sentence("Two hosts that are enabled and up are needed: one to drain, one to move to.")
        for host in [wanted] if wanted is not None else sorted(usable):
            nodes = self.cloud.nodes(host)
            if len(nodes) == 1 and not self.cloud.holders(nodes):
                return str(host)
        if wanted is not None:
            raise Sentence(f"{wanted} holds servers already, and nobody else's are moved here; choose another HOST.")
        raise Sentence("Every host holds something, and nobody else's servers are moved here; empty one first.")

    def go(self, drain: dict[str, str] | None = None) -> None:
        """Have maintd running, with these [drain] options beside settle_s; it is replaced when they differ."""
        wanted = drain or {}
        if self.maintd is not None and wanted == self._drain:
            return
        self.halt()
        self.maintd, self._drain, self._started_at = self._make_maintd(wanted), wanted, len(self.receiver.heard)
        self.maintd.start()
        self.say(f"maintd run: pid {self.maintd.pid}, listens to the bus, has read the cloud")

    def halt(self) -> None:
        """End maintd, keeping what was wrong with it; then take its queue away."""
        if self.maintd is None:
            return
        maintd, self.maintd = self.maintd, None
        undelivered = [d for d in maintd.deliveries() if d.get("state") != "delivered"]
        self.faults += [f"a delivery is {d.get('state')}: {d}" for d in undelivered]
        passes = maintd.metrics("maintd_verifications_total")
        if passes:
            self.say("verification passes: " + ", ".join(f"{n.split(chr(34))[1]} {v:.0f}" for n, v in passes.items()))
        heard = self.receiver.heard[self._started_at :]
        if maintd.running:
            self.faults += judge.envelopes(heard, INSTALLATION) + judge.same_as_log(heard, maintd.events())
        self.faults += maintd.stop()
        self.faults += maintd.remove_queue()

    # -- the operator's doings ----------------------------------------------------------------------------------------

    def create(self) -> dict[str, str]:
        """Servers on the host, as many as asked for; their names by id."""
        providers = [p for node in self.cloud.nodes(self.host) for p in self.cloud.providers(node)][:1]

        def schedulable() -> bool:
            path = f"/resource_providers/{providers[0]}/traits"
            return DISABLED_TRAIT not in self.cloud.get(path, "1.6", PLACEMENT)["traits"]

        if not until(schedulable, 60.0, 1.0):
            raise Sentence(f"{self.host} is enabled, but Placement still has {DISABLED_TRAIT} on it after a minute.")
        self._count += 1
        made: dict[str, str] = {}
        for number in range(1, self.options.servers + 1):
            name = f"maintd-{self._run}-{self._count}-{number}"
            server_id = self.cloud.create(name, self.host, self._image, self._flavor, self._network)
            made[server_id] = self._made[server_id] = name
        self.say(f"{len(made)} servers asked for on {self.host}")

        def built() -> bool:
            shown = [self.cloud.server(server_id) or {} for server_id in made]
            for server in shown:
                if server.get("status") == "ERROR":
                    raise Sentence(f"Nova could not build a server: {(server.get('fault') or {}).get('message')}")
            return all(server.get("status") == "ACTIVE" for server in shown)

        if not until(built, self.options.patience_s):
            raise Sentence(f"The servers are not ACTIVE after {self.options.patience_s:g} s.")
        return made

    def watch(self) -> Watcher:
        nodes = self.cloud.nodes(self.host)
        watcher = Watcher(lambda: Cloud(self.options.cloud), self.host, nodes, self.options.per_second).start()
        self._watchers.append(watcher)
        return watcher

    def shut(self, reason: str) -> str | None:
        """Disable the compute service."""
        self._closed.add(self.host)
        self.say(f"compute service set --disable --disable-reason {reason!r} {self.host} nova-compute")
        return self.cloud.set_service(self.host, status="disabled", disabled_reason=reason)

    def open(self) -> str | None:
        """Enable it again."""
        self.say(f"compute service set --enable {self.host} nova-compute")
        request_id = self.cloud.set_service(self.host, status="enabled")
        self._closed.discard(self.host)
        return request_id

    def force_down(self, down: bool) -> str | None:
        self.say(f"compute service set --{'down' if down else 'up'} {self.host} nova-compute")
        return self.cloud.set_service(self.host, forced_down=down)

    def compute(self, start: bool) -> None:
        """Stop or start nova-compute on the host, by the command given for it."""
        command = self.options.start_compute if start else self.options.stop_compute
        if not command:
            raise Sentence(
                "This story stops nova-compute: say how with STOP_COMPUTE and START_COMPUTE, commands in which {host} "
                "stands for the host."
            )
        words = [word.replace("{host}", self.host) for word in shlex.split(command)]
        self.say(f"{'starts' if start else 'stops'} nova-compute on {self.host}")
        if not start:
            self._stopped.add(self.host)
        subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL)
        if start:
            self._stopped.discard(self.host)
        state = "up" if start else "down"

        def shown() -> bool:
            service = self.cloud.service(self.host)
            return service["state"] == state or bool(start and service["forced_down"])  # which always shows as down

        if not until(shown, 180.0, 1.0):
            raise Fault(f"Nova does not show the compute of {self.host} as {state} after three minutes")

    def settled(self, servers: dict[str, str], done: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Wait until every server is `done` and no task of it goes on."""

        def all_done() -> bool:
            shown = [self.cloud.server(server_id) for server_id in servers]
            return all(s is not None and s["OS-EXT-STS:task_state"] is None and done(s) for s in shown)

        if not until(all_done, self.options.patience_s, 0.5):
            raise Fault(f"the cloud did not get its servers {what} within {self.options.patience_s:g} s")

    def away(self, servers: dict[str, str]) -> None:
        self.settled(servers, lambda s: s["OS-EXT-SRV-ATTR:host"] != self.host, f"away from {self.host}")
        self.say(f"Nova: all servers are away from {self.host}")

    # -- what came of it ----------------------------------------------------------------------------------------------

    def expect(self, event_type: str, timeout_s: float, wanted: Callable[[Heard], bool] = lambda h: True) -> Heard:
        """The first event of this type about the host in this story. Raises Fault when it does not come."""
        found = self.receiver.wait_for(
            lambda h: h.type == event_type and h.event["subject"] == self.host and wanted(h), self._from, timeout_s
        )
        if found is None:
            assert self.maintd is not None
            why = [f"{b['kind']}: {b['detail']}" for b in self.maintd.host(self.host).get("blockers", [])]
            raise Fault(f"{event_type} of {self.host} did not come within {timeout_s:g} s; blockers: {why}")
        self.say(f"webhook: {event_type} {self._short(found)}")
        return found

    def none_comes(self, event_type: str, for_s: float) -> None:
        """Wait that long; raises Fault when an event of this type came, now or before."""
        found = self.receiver.wait_for(
            lambda h: h.type == event_type and h.event["subject"] == self.host, self._from, for_s
        )
        if found is not None:
            raise Fault(f"{event_type} came when it must not: {found.data}")

    def blockers(self) -> list[dict[str, Any]]:
        assert self.maintd is not None
        return list(self.maintd.host(self.host).get("blockers", []))

    def _short(self, heard: Heard) -> str:
        data = heard.data
        return " ".join(str(data[k]) for k in ("host", "server_id", "reason", "duration_seconds") if data.get(k))

    def gather(self, facts: Facts) -> Facts:
        """Fill in what Nova says of each server in the end, and what was heard since the last story."""
        time.sleep(2.0)  # whatever is said once too often would come now
        facts.watcher.stop()
        for server_id in facts.servers:
            facts.rows += self.cloud.rows(server_id)
            server = self.cloud.server(server_id)
            facts.where[server_id] = server["OS-EXT-SRV-ATTR:host"] if server else None
        facts.heard = self.heard_since()
        if facts.watcher.errors:
            self.say(f"{len(facts.watcher.errors)} looks at the host failed, such as: {facts.watcher.errors[0]}")
        return facts

    def heard_since(self) -> list[Heard]:
        heard = self.receiver.heard[self._from :]
        self._from += len(heard)
        return heard

    # -- after --------------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Undo what the story left: stopped computes, closed hosts, servers. Goes on whatever fails."""
        for watcher in self._watchers:
            watcher.stop()
        self._watchers.clear()
        for host in list(self._stopped):
            self._try(f"start nova-compute on {host}", lambda: self.compute(start=True))
        for host in list(self._closed):
            self._try(f"enable {host}", lambda host=host: self._reopen(host))  # type: ignore[misc]
        for server_id, name in list(self._made.items()):
            if self._try(f"delete {name}", lambda i=server_id: self.cloud.delete(i)):  # type: ignore[misc]
                del self._made[server_id]
            else:
                print(f"          {name} ({server_id}) could not be deleted", file=sys.stderr)

    def _reopen(self, host: str) -> bool:
        def lifted() -> bool:
            try:
                if self.cloud.service(host)["forced_down"]:
                    self.cloud.set_service(host, forced_down=False)
                return True
            except CloudSays:  # refused until the compute has dealt with what was evacuated from it
                return False

        until(lifted, 120.0, 2.0)
        self.cloud.set_service(host, status="enabled")
        self._closed.discard(host)
        return True

    def _try(self, what: str, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except (CloudSays, Sentence, Fault, OSError, subprocess.SubprocessError) as wrong:
            print(f"          cleaning up, {what}: {wrong}", file=sys.stderr)
            return None


def load_now() -> str:
    """How busy this machine is: delays measured here mean little without it."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
