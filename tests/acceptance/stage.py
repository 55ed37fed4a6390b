"""What every story stands on: the cloud, the maintd under test, the receiver, the servers made, and how to leave clean.

A `Stage` remembers all that it changed (servers made, hosts closed, computes stopped, wishes made) and undoes it in
`sweep`, whatever became of the story.

Some stories need more than the API: nova-compute stopped and started, or a step of Nova that fails or takes its time.
How that is done differs from cloud to cloud, so it comes as a command. What a step is wished to do is one JSON object,
put for `{json}` in the command of `--set-knob`, and stays so until the next:

    {"servers": {ID: {STEP: {"fail": true}, STEP: {"seconds": 8}}}}        {}: everything as it always is

STEP is spawn, migrate_disk, finish_migration, finish_revert, pre_live_migration, live_migration, post_at_destination or
destroy; live_migration takes a `mode` too: converge, slow, stuck, diverge, fail (it is rolled back) or error (the
driver raises).
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance import judge
from tests.acceptance.cloud import FINAL, PLACEMENT, Cloud, CloudSays, Sentence, until
from tests.acceptance.judge import Facts
from tests.acceptance.receiver import Heard, Receiver
from tests.acceptance.subject import INSTALLATION, Maintd, Settings
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
    set_knob: str | None = None
    to: str | None = None
    record: Path | None = None


class Fault(Exception):
    """The story cannot go on, because something that had to come did not."""


class Stage:
    """One run of the runner. `say` tells what is done; `make_maintd` makes a maintd, with options beside the usual."""

    def __init__(self, options: Options, receiver: Receiver, make_maintd: Callable[[Settings], Maintd]) -> None:
        self.options = options
        self.receiver = receiver
        self.cloud = Cloud(options.cloud)
        self.maintd: Maintd | None = None
        self.faults: list[str] = []  # of maintd's ends and logs, whatever the story
        self._make_maintd = make_maintd
        self._settings: Settings = {}
        self._run = secrets.token_hex(3)
        self._count = 0
        self._made: dict[str, str] = {}
        self._closed: set[str] = set()
        self._stopped: set[str] = set()
        self._wished = False
        self._groups: list[str] = []
        self._leaks: set[str] = set()
        self._rows: dict[str, dict[str, Any]] = {}
        self._recording: subprocess.Popen[bytes] | None = None
        self._watchers: list[Watcher] = []
        self._undo: list[tuple[str, Callable[[], Any]]] = []
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

    def go(self, settings: Settings | None = None) -> None:
        """Have maintd running, with these options beside settle_s; it is replaced when they differ."""
        wanted = settings or {}
        if self.maintd is not None and wanted == self._settings:
            return
        self.halt()
        self.maintd, self._settings, self._started_at = self._make_maintd(wanted), wanted, len(self.receiver.heard)
        if wanted.get("api", {}).get("auth") == "keystone":
            self.maintd.token = lambda: str(self.cloud.connection.auth_token)
        self.maintd.start()
        self.say(f"maintd run: pid {self.maintd.pid}, listens to the bus, has read the cloud")

    def fresh(self) -> None:
        """What cleaning up after the story before let maintd say is no part of the next one."""
        maintd = self.maintd
        if maintd is not None:
            until(lambda: not maintd.host(self.host).get("closed"), 15.0)
            self.recovered()
            maintd.clear_residue(self.host)
        self.heard_since()

    def record(self, name: str) -> None:
        """From now on, and until the sweep, keep what is on the bus, where that was asked for."""
        if self.options.record is None:
            return
        if self.maintd is None:
            self.go()
        assert self.maintd is not None
        file = self.options.record / f"{name}.jsonl"
        file.unlink(missing_ok=True)
        self._recording = self.maintd.begin_record(file)
        if not until(lambda: "connected" in file.with_suffix(".log").read_text(errors="replace"), 30.0):
            raise Sentence(f"maintd record does not listen; see {file.with_suffix('.log')}")

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
        self.faults += judge.envelopes(heard, INSTALLATION)
        if maintd.running:
            log = maintd.events()
            self.faults += ["maintd did not answer"] if log is None else judge.same_as_log(heard, log)
        self.faults += maintd.stop()
        self.faults += maintd.remove_queue()

    def need(self, *, compute: bool = False, knob: bool = False, servers: int = 1) -> None:
        """What a story cannot be told without. Raises Sentence where it was not given."""
        if compute and not (self.options.stop_compute and self.options.start_compute):
            raise Sentence(
                "This story stops nova-compute: say how with STOP_COMPUTE and START_COMPUTE, commands in which {host} "
                "stands for the host."
            )
        if knob and not self.options.set_knob:
            raise Sentence(
                "This story makes a step of Nova fail or slow: say how with SET_KNOB, a command in which {json} stands "
                "for what is wished (tests/acceptance/stage.py says what may be wished)."
            )
        if self.options.servers < servers:
            raise Sentence(f"This story needs {servers} servers at least: SERVERS={servers}.")

    # -- the operator's doings ----------------------------------------------------------------------------------------

    def create(
        self, number: int | None = None, *, wait: bool = True, group: str | None = None, tries: int = 3
    ) -> dict[str, str]:
        """Servers on the host, as many as asked for; their names by id. Without `wait`, they are only asked for.

        A cloud that is busy may fail to build some; then all are made anew.
        """
        if wait:
            self._wait_schedulable()
        made: dict[str, str] = {}
        self._count += 1
        for index in range(1, (number or self.options.servers) + 1):
            name = f"maintd-{self._run}-{self._count}-{index}"
            server_id = self.cloud.create(name, self.host, self._image, self._flavor, self._network, group)
            made[server_id] = self._made[server_id] = name
        self.say(f"{len(made)} servers asked for on {self.host}")
        if wait and not self.built(made):
            for server_id, name in made.items():
                self.cloud.delete(server_id)
                del self._made[server_id]
                self.say(f"Nova could not build {name}")
            if tries == 1:
                raise Fault(f"Nova builds nothing on {self.host}")
            return self.create(number, group=group, tries=tries - 1)
        return made

    def _wait_schedulable(self) -> None:
        """Nova would refuse what is asked of a compute that it finds down, or that has just been enabled."""
        if not until(lambda: self.cloud.service(self.host)["state"] == "up", 60.0, 1.0):
            raise Sentence(f"Nova finds the compute of {self.host} down.")
        providers = [p for node in self.cloud.nodes(self.host) for p in self.cloud.providers(node)][:1]

        def schedulable() -> bool:
            path = f"/resource_providers/{providers[0]}/traits"
            return DISABLED_TRAIT not in self.cloud.get(path, "1.6", PLACEMENT)["traits"]

        if not until(schedulable, 60.0, 1.0):
            raise Sentence(f"{self.host} is enabled, but Placement still has {DISABLED_TRAIT} on it after a minute.")

    def built(self, servers: dict[str, str]) -> bool:
        """Wait until each is ACTIVE or in ERROR; whether all are ACTIVE."""
        words: set[Any] = set()

        def built() -> bool:
            nonlocal words
            words = {(self.cloud.server(server_id) or {}).get("status") for server_id in servers}
            return words <= {"ACTIVE", "ERROR"}

        if not until(built, self.options.patience_s):
            raise Sentence(f"The servers are not ACTIVE after {self.options.patience_s:g} s.")
        return words == {"ACTIVE"}

    def create_within(self, connection: Any, name: str) -> dict[str, str]:
        """A server on the host, in the project of this connection; its name by id. It is only asked for."""
        self._wait_schedulable()
        name = f"maintd-{self._run}-{name}"
        server = self.cloud.create(name, self.host, self._image, self._flavor, self._network, within=connection)
        self._made[server] = name
        self.say(f"{name} asked for on {self.host}")
        return {server: name}

    def undo(self, what: str, *steps: Callable[[], Any]) -> None:
        """Have the sweep take back what a story made beside servers."""
        self._undo += [(what, step) for step in steps]

    def group(self) -> str:
        """A server group whose members stay together."""
        group = self.cloud.affinity(f"maintd-{self._run}")
        self._groups.append(group)
        return group

    def other_flavor(self) -> str:
        return self.cloud.other_flavor(self._flavor)

    def watch(self) -> Watcher:
        nodes = self.cloud.nodes(self.host)
        watcher = Watcher(lambda: Cloud(self.options.cloud), self.host, nodes, self.options.per_second).start()
        self._watchers.append(watcher)
        return watcher

    def shut(self, reason: str, cloud: Cloud | None = None) -> str | None:
        """Disable the compute service; by a cloud of its own where another thread does it."""
        self._closed.add(self.host)
        self.say(f"compute service set --disable --disable-reason {reason!r} {self.host} nova-compute")
        return (cloud or self.cloud).set_service(self.host, status="disabled", disabled_reason=reason)

    def open(self) -> str | None:
        """Enable it again."""
        self.say(f"compute service set --enable {self.host} nova-compute")
        request_id = self.cloud.set_service(self.host, status="enabled")
        self._closed.discard(self.host)
        return request_id

    def force_down(self, down: bool) -> str | None:
        self.say(f"compute service set --{'down' if down else 'up'} {self.host} nova-compute")
        return self.cloud.set_service(self.host, forced_down=down)

    def compute(self, start: bool, *, wait: bool = True) -> None:
        """Stop or start nova-compute on the host, by the command given for it, and wait until Nova shows it."""
        self.need(compute=True)
        command = self.options.start_compute if start else self.options.stop_compute
        words = [word.replace("{host}", self.host) for word in shlex.split(command or "")]
        self.say(f"{'starts' if start else 'stops'} nova-compute on {self.host}")
        if not start:
            self._stopped.add(self.host)
        before = self.cloud.service(self.host)["updated_at"]
        subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL)
        if start:
            self._stopped.discard(self.host)
            if not until(lambda: self.cloud.service(self.host)["updated_at"] != before, 60.0, 1.0):
                self.say("once more: it may not have ended before")
                subprocess.run(words, check=True, timeout=120, stdout=subprocess.DEVNULL)
        if wait:
            self.up(start, before if start else None)

    def up(self, wanted: bool = True, heard_after: str | None = None) -> None:
        """Wait until Nova shows the compute as up, and has heard of it after then; or as down."""
        state = "up" if wanted else "down"

        def shown() -> bool:
            service = self.cloud.service(self.host)
            if wanted and service["forced_down"]:  # which always shows as down
                return service["updated_at"] != heard_after
            return service["state"] == state and service["updated_at"] != heard_after

        if not until(shown, 180.0, 1.0):
            raise Fault(f"Nova does not show the compute of {self.host} as {state} after three minutes")

    def recovered(self) -> None:
        """Wait until whatever was said to be lost in this story is said to have recovered; the judge wants it so."""

        def pending() -> int:
            mine = [h.type for h in self.receiver.heard[self._from :] if h.event["subject"] == self.host]
            return mine.count("service.lost") - mine.count("service.recovered")

        until(lambda: pending() <= 0, 60.0, 0.5)

    def wish(self, servers: dict[str, dict[str, Any]]) -> None:
        """Have steps of Nova fail or take their time for some servers, by the command given for it; {} ends it."""
        self.need(knob=True)
        wished = json.dumps({"servers": servers} if servers else {})
        self._wished = bool(servers)
        self.say(f"wishes {wished}")
        words = [word.replace("{json}", wished) for word in shlex.split(self.options.set_knob or "")]
        subprocess.run(words, check=True, timeout=60, stdout=subprocess.DEVNULL)

    def note_rows(self, servers: dict[str, str], status: str | None = None) -> None:
        """Keep the migrations of servers about to be deleted, which Nova forgets; `status`: how they end with that."""
        for server_id in servers:
            for row in self.cloud.rows(server_id):
                self._rows[row["uuid"]] = row | ({"status": status} if status is not None else {})

    def delete(self, servers: dict[str, str], action: str | None = None) -> None:
        """Delete servers as an operator does, or by this action, and wait until Nova shows them no more."""
        for server_id in servers:
            if action is None:
                self.cloud.delete_softly(server_id)
            else:
                self.cloud.act(server_id, action)
        self.say(f"server delete{' --force' if action else ''}, for {len(servers)}")
        self.gone(servers)

    def leaks(self, servers: dict[str, str]) -> dict[str, str]:
        """Migrations of these servers that are over, and still hold something on the host: by uuid, the server."""
        holders = self.cloud.holders(self.cloud.nodes(self.host))
        rows = [row for server_id in servers for row in self.cloud.rows(server_id)]
        return {row["uuid"]: row["instance_uuid"] for row in rows if row["uuid"] in holders and row["status"] in FINAL}

    def gone(self, servers: dict[str, str]) -> None:
        if not until(lambda: all(self.cloud.server(i) is None for i in servers), self.options.patience_s, 0.5):
            raise Fault(f"the cloud did not delete its servers within {self.options.patience_s:g} s")

    def settled(self, servers: dict[str, str], done: Callable[[dict[str, Any]], bool], what: str) -> None:
        """Wait until every server is `done` and no task of it goes on."""

        def all_done() -> bool:
            shown = [self.cloud.server(server_id) for server_id in servers]
            return all(s is not None and s["OS-EXT-STS:task_state"] is None and done(s) for s in shown)

        if not until(all_done, self.options.patience_s, 0.5):
            raise Fault(f"the cloud did not get its servers {what} within {self.options.patience_s:g} s")

    def away(self, servers: dict[str, str]) -> None:
        self.settled(servers, lambda s: s["OS-EXT-SRV-ATTR:host"] != self.host, f"away from {self.host}")
        self.say(f"Nova: {len(servers)} servers are away from {self.host}")

    # -- what came of it ----------------------------------------------------------------------------------------------

    def _heard(self, event_type: str, wanted: Callable[[Heard], bool], number: int) -> Callable[[Heard], bool]:
        """Whether this is the `number`th event that is wanted of this story, told by the place where it stands."""

        def right(heard: Heard) -> bool:
            if heard.type != event_type or heard.event["subject"] != self.host or not wanted(heard):
                return False
            same = [h for h in self.receiver.heard[self._from :] if h.type == event_type and wanted(h)]
            mine = [h for h in same if h.event["subject"] == self.host]
            return len(mine) >= number and mine[number - 1] is heard

        return right

    def expect(
        self, event_type: str, timeout_s: float, wanted: Callable[[Heard], bool] = lambda h: True, number: int = 1
    ) -> Heard:
        """The first event of this type about the host in this story, or the `number`th. Raises Fault when it does not
        come."""
        found = self.receiver.wait_for(self._heard(event_type, wanted, number), self._from, timeout_s)
        if found is None:
            assert self.maintd is not None
            why = [f"{b['kind']}: {b['detail']}" for b in self.maintd.host(self.host).get("blockers", [])]
            raise Fault(f"{event_type} of {self.host} did not come within {timeout_s:g} s; blockers: {why}")
        self.say(f"webhook: {event_type} {self._short(found)}")
        return found

    def none_comes(self, event_type: str, for_s: float, number: int = 1) -> None:
        """Wait that long; raises Fault when an event of this type came, now or before: the first, or the `number`th."""
        found = self.receiver.wait_for(self._heard(event_type, lambda h: True, number), self._from, for_s)
        if found is not None:
            raise Fault(f"EARLY: {event_type} came when it must not: {found.data}")

    def blockers(self) -> list[dict[str, Any]]:
        assert self.maintd is not None
        return list(self.maintd.host(self.host).get("blockers", []))

    def kinds(self) -> set[tuple[str, str | None]]:
        """What blocks the host, by kind and server."""
        return {(b["kind"], b["server_id"]) for b in self.blockers()}

    def blocked(self, wanted: set[tuple[str, str]], within_s: float = 30.0) -> None:
        """The host's blockers come to be these, and no others. Raises Fault when they do not in time."""
        if not until(lambda: self.kinds() == wanted, within_s, 0.5):
            raise Fault(f"the host's blockers are {sorted(self.kinds(), key=str)}, not {sorted(wanted)}")
        self.say(f"blocked by {', '.join(sorted({kind for kind, _ in wanted}))}, as it must be")

    def clear_residue(self) -> float:
        """The operator has looked, and says that nothing is left. Since when that is so."""
        assert self.maintd is not None
        at = time.time()
        self.say(f"maintd residue clear {self.host}")
        wrong = self.maintd.clear_residue(self.host)
        if wrong:
            raise Fault(wrong[0])
        return at

    def _short(self, heard: Heard) -> str:
        data = heard.data
        return " ".join(str(data[k]) for k in ("host", "server_id", "reason", "duration_seconds") if data.get(k))

    def gather(self, facts: Facts) -> Facts:
        """Fill in what Nova says of each server in the end, and what was heard since the last story."""
        time.sleep(2.0)  # whatever is said once too often would come now
        facts.watcher.stop()
        rows = dict(self._rows)
        for server_id in facts.servers:
            rows |= {row["uuid"]: row for row in self.cloud.rows(server_id)}
        facts.rows = [row for row in rows.values() if row["instance_uuid"] in facts.servers]
        for server_id in facts.servers:
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
        if self._recording is not None:
            self._recording.terminate()
            self._recording.wait(30.0)
            self._recording = None
        if self._wished:
            self._try("take back what was wished", lambda: self.wish({}))
        for host in list(self._stopped):
            self._try(f"start nova-compute on {host}", lambda: self.compute(start=True))
        for host in list(self._closed):
            self._try(f"enable {host}", lambda host=host: self._reopen(host))  # type: ignore[misc]
        for server_id, name in list(self._made.items()):
            rows = self._try(f"ask after {name}", lambda i=server_id: self.cloud.rows(i))  # type: ignore[misc]
            self._leaks |= {row["uuid"] for row in rows or ()}
            if self._try(f"delete {name}", lambda i=server_id: self.cloud.delete(i)):  # type: ignore[misc]
                del self._made[server_id]
            else:
                print(f"          {name} ({server_id}) could not be deleted", file=sys.stderr)
        for group in self._groups:
            self._try("delete a server group", lambda group=group: self.cloud.drop_group(group))  # type: ignore[misc]
        left = self._try("look for what leaked", lambda: self.cloud.holders(self.cloud.nodes(self.host))) or frozenset()
        for consumer in left & self._leaks:
            self._try("drop what leaked", lambda consumer=consumer: self.cloud.drop_allocation(consumer))  # type: ignore[misc]
        for what, step in self._undo:
            self._try(what, step)
        self._undo.clear()
        self._groups.clear()
        self._leaks.clear()
        self._rows.clear()

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
