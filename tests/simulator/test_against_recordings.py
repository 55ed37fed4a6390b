"""The simulator held against a real Nova: the same acts must give the same messages.

`recorded/*.json` are recordings of Nova 34 on five computes with a driver that obeys knobs, cut down to the fields that
`sequences` compares. Each story here repeats what was done then; times and ids differ, nothing else may. Compared
exactly, `instance.update` included.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maintd.clock import ManualClock
from maintd.simulator import Cloud, Refused
from maintd.simulator.model import Server
from maintd.simulator.notifications import Json
from tests.simulator.sequences import Told, sequences

RECORDED = Path(__file__).parent / "recorded"


def recorded(story: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((RECORDED / f"{story}.json").read_text())
    return result


class Stage:
    """Five computes and a list of what they said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Json]] = []
        self.clock = ManualClock(1_800_000_000.0)
        self.cloud = Cloud(self.clock, lambda key, inner: self.said.append((key, inner)), controller="ctl")
        for number in range(1, 6):
            self.cloud.add_host(f"cmp-0{number}")
        self.statuses: dict[str, list[str]] = {}
        self.names: dict[str, str] = {}

    def create(self, prefix: str, count: int, host: str) -> list[Server]:
        servers = [self.cloud.create(f"{prefix}-{n}", host=host) for n in range(1, count + 1)]
        self.settle()
        return servers

    def settle(self) -> None:
        self.wait(3600.0)

    def wait(self, seconds: float) -> None:
        """Let time pass, looking at the migrations after every step."""
        end = self.clock.now() + seconds
        while (due := self.cloud.next_due()) is not None and due <= end:
            self.cloud.advance(due)
            self.look()
        if seconds < 3600.0:
            self.cloud.advance(end)

    def look(self) -> None:
        for rows in self.cloud.migrations_of.values():
            for number, row in enumerate(rows, 1):
                self.names[row.uuid] = f"migration of {row.server.name}"
                seen = self.statuses.setdefault(f"{row.server.name} #{number} {row.kind}", [])
                if not seen or seen[-1] != row.status:
                    seen.append(row.status)

    def held(self, home: str) -> dict[str, list[str]]:
        """Which consumer holds something in Placement, at home or away."""
        self.names |= {server.id: server.name for server in self.cloud.all_servers}
        found: dict[str, list[str]] = {}
        for host in self.cloud.hosts.values():
            for consumer in host.provider.allocations:
                found.setdefault(self.names[consumer], []).append("home" if host.name == home else "away")
        return {name: sorted(where) for name, where in found.items()}


def drain_live(stage: Stage) -> None:
    servers = stage.create("dl", 5, "cmp-01")
    stage.cloud.knobs.set("live_migration", mode="converge", seconds=4)
    stage.cloud.disable("cmp-01", "kernel update")
    for server in servers:
        stage.cloud.live_migrate(server.id)
        stage.wait(0.5)
    stage.settle()
    stage.cloud.enable("cmp-01")


def drain_cold(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.knobs.set("migrate_disk", seconds=2)
    cloud.knobs.set("finish_migration", seconds=1)
    cloud.knobs.set("finish_migration", server="dc-5", fail=True)
    cloud.knobs.set("migrate_disk", server="dc-6", fail=True, seconds=2)
    servers = stage.create("dc", 6, "cmp-01")
    cloud.disable("cmp-01", "cold drain")
    for server in servers[:4]:
        cloud.migrate(server.id)
    stage.settle()
    cloud.confirm(servers[0].id)
    cloud.confirm(servers[1].id)
    stage.settle()
    cloud.revert(servers[2].id)
    stage.settle()
    for server in (servers[4], servers[5], servers[2]):
        cloud.migrate(server.id)
        stage.settle()
    cloud.confirm(servers[2].id)
    stage.settle()
    cloud.delete(servers[3].id)
    stage.settle()
    cloud.enable("cmp-01")


def lm_abort(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.knobs.set("live_migration", mode="slow", seconds=60)
    first, second = stage.create("ab", 2, "cmp-01")
    cloud.disable("cmp-01", "to be aborted")
    cloud.live_migrate(first.id)
    stage.wait(3.0)
    cloud.live_migrate(second.id)
    stage.wait(4.0)
    cloud.abort(second.id, cloud.migrations_of[second.id][0].id)
    stage.wait(2.0)
    cloud.abort(first.id, cloud.migrations_of[first.id][0].id)
    stage.settle()


def lm_fail(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.knobs.set("live_migration", mode="converge", seconds=3)
    cloud.knobs.set("live_migration", server="lf-1", mode="fail", seconds=4)
    cloud.knobs.set("live_migration", server="lf-2", mode="error", seconds=3)
    cloud.knobs.set("pre_live_migration", server="lf-3", fail=True)
    cloud.knobs.set("post_at_destination", server="lf-4", fail=True)
    servers = stage.create("lf", 5, "cmp-01")
    cloud.disable("cmp-01", "failures")
    for server in servers[:4]:
        cloud.live_migrate(server.id, None if server is servers[0] else "cmp-04")
        stage.settle()
    others = ("cmp-02", "cmp-03", "cmp-04", "cmp-05")
    for host in others:
        cloud.disable(host, "nowhere to go")
    cloud.live_migrate(servers[4].id)
    stage.settle()
    for host in others:
        cloud.enable(host)


def lm_stuck(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.knobs.set("live_migration", mode="converge", seconds=4)
    cloud.knobs.set("live_migration", server="st-1", mode="stuck", seconds=6, floor=0.4)
    servers = stage.create("st", 3, "cmp-01")
    cloud.disable("cmp-01", "stuck drain")
    cloud.live_migrate(servers[0].id)
    stage.wait(3.0)
    cloud.live_migrate(servers[1].id)
    cloud.live_migrate(servers[2].id)
    stage.wait(43.0)
    cloud.knobs.clear()
    stage.settle()
    cloud.enable("cmp-01")


def evacuate(stage: Stage) -> None:
    cloud = stage.cloud
    servers = stage.create("ev", 4, "cmp-02")
    cloud.stop_server(servers[1].id)
    stage.settle()
    cloud.kill_compute("cmp-02")
    stage.wait(1.0)
    cloud.set_service("cmp-02", forced_down=True)
    cloud.disable("cmp-02", "host is dead")
    for server in servers[:2]:
        cloud.evacuate(server.id)
    stage.settle()
    cloud.knobs.set("spawn", server="ev-3", fail=True)
    cloud.evacuate(servers[2].id)
    stage.settle()
    cloud.delete(servers[3].id)
    for returned in (False, True):
        if returned:
            cloud.start_compute("cmp-02")
            stage.look()
        else:
            with pytest.raises(Refused, match="Unable to force up host cmp-02"):
                cloud.set_service("cmp-02", forced_down=False)
    cloud.enable("cmp-02")


def leave_otherwise(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.knobs.set("spawn", server="lo-late", seconds=8)
    cloud.knobs.set("destroy", server="lo-3", seconds=4)
    servers = stage.create("lo", 5, "cmp-03")
    cloud.create("lo-late", host="cmp-03")
    stage.wait(2.0)
    cloud.create("lo-late2", host="cmp-03")
    cloud.disable("cmp-03", "leaving by other doors")
    cloud.shelve(servers[0].id)
    stage.settle()
    cloud.unshelve(servers[0].id)
    stage.settle()
    cloud.delete(servers[1].id)
    stage.settle()
    cloud.delete(servers[2].id, force=True)
    stage.settle()
    cloud.stop_server(servers[3].id)
    stage.settle()
    cloud.delete(servers[3].id)
    stage.settle()
    cloud.enable("cmp-03")


def late_build(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.hosts["cmp-03"].builds.limit = 1
    cloud.knobs.set("spawn", seconds=6)
    first = cloud.create("lb-1", host="cmp-03")
    stage.wait(1.5)
    second = cloud.create("lb-2", host="cmp-03")
    stage.wait(2.0)
    cloud.disable("cmp-03", "late build")
    cloud.delete(first.id)
    stage.settle()
    cloud.live_migrate(second.id)
    stage.settle()
    cloud.enable("cmp-03")


def refill(stage: Stage) -> None:
    cloud = stage.cloud
    first, second = stage.create("refill", 2, "cmp-01")
    cloud.disable("cmp-01", "maintenance")
    for server in (first, second):
        cloud.live_migrate(server.id)
        stage.settle()
    cloud.live_migrate(first.id, "cmp-01", force=True)
    stage.settle()
    cloud.live_migrate(first.id)
    stage.settle()
    cloud.enable("cmp-01")


def revert(stage: Stage) -> None:
    cloud = stage.cloud
    servers = stage.create("revert", 2, "cmp-01")
    cloud.disable("cmp-01", "maintenance")
    for act in (cloud.migrate, cloud.revert, cloud.live_migrate):
        for server in servers:
            act(server.id)
        stage.settle()
    cloud.enable("cmp-01")


def error(stage: Stage) -> None:
    cloud = stage.cloud
    first, second = stage.create("error", 2, "cmp-01")
    cloud.disable("cmp-01", "maintenance")
    cloud.reset_state(first.id)
    cloud.live_migrate(second.id)
    stage.settle()
    cloud.delete(first.id)
    stage.settle()
    cloud.enable("cmp-01")


def restart(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.knobs.set("live_migration", server="restart-1", mode="slow", seconds=60)
    first, second = stage.create("restart", 2, "cmp-03")
    cloud.disable("cmp-03", "maintenance")
    cloud.live_migrate(first.id)
    stage.wait(7.0)
    cloud.kill_compute("cmp-03")
    stage.wait(30.0)
    cloud.start_compute("cmp-03")
    stage.settle()
    cloud.knobs.set("live_migration", server="restart-1", seconds=4)
    cloud.live_migrate(first.id)
    cloud.live_migrate(second.id)
    stage.settle()


def evacuate_delete(stage: Stage) -> None:
    cloud = stage.cloud
    servers = stage.create("evacuate-delete", 2, "cmp-01")
    cloud.kill_compute("cmp-01")
    stage.wait(1.0)
    cloud.set_service("cmp-01", forced_down=True)
    cloud.disable("cmp-01", "maintenance")
    for server in servers:
        cloud.evacuate(server.id, ends_stopped=False)
    stage.settle()
    for server in servers:
        cloud.delete(server.id)
    stage.settle()
    cloud.start_compute("cmp-01")
    cloud.set_service("cmp-01", forced_down=False)
    cloud.enable("cmp-01")


def soft_delete(stage: Stage) -> None:
    cloud = stage.cloud
    first, second = stage.create("soft-delete", 2, "cmp-03")
    cloud.timing = replace(cloud.timing, reclaim_interval_s=3600.0)
    cloud.disable("cmp-03", "maintenance")
    cloud.delete(first.id)
    cloud.delete(second.id)
    stage.wait(15.0)
    cloud.restore(first.id)
    stage.wait(2.0)
    cloud.live_migrate(first.id)
    stage.wait(15.0)
    cloud.delete(second.id, force=True)
    stage.wait(5.0)
    cloud.enable("cmp-03")


def force_complete(stage: Stage) -> None:
    cloud = stage.cloud
    first, second = stage.create("force-complete", 2, "cmp-03")
    cloud.knobs.set("live_migration", server="force-complete-1", mode="diverge", seconds=60)
    cloud.disable("cmp-03", "maintenance")
    cloud.live_migrate(first.id)
    stage.wait(1.5)
    cloud.force_complete(first.id, cloud.migrations_of[first.id][0].id)
    stage.settle()
    cloud.live_migrate(second.id)
    stage.settle()


UNSAMPLED: list[tuple[str, Callable[[Stage], None]]] = [
    ("refill", refill),
    ("revert", revert),
    ("error", error),
    ("restart", restart),
    ("evacuate-delete", evacuate_delete),
    ("soft-delete", soft_delete),
    ("force-complete", force_complete),
]
"""Recordings beside which nobody asked the API."""

STORIES: list[tuple[str, str, str, Callable[[Stage], None]]] = [
    ("drain-live", "dl-", "cmp-01", drain_live),
    ("drain-cold", "dc-", "cmp-01", drain_cold),
    ("lm-abort", "ab-", "cmp-01", lm_abort),
    ("lm-fail", "lf-", "cmp-01", lm_fail),
    ("lm-stuck", "st-", "cmp-01", lm_stuck),
    ("evacuate", "ev-", "cmp-02", evacuate),
    ("leave-otherwise", "lo-", "cmp-03", leave_otherwise),
    ("late-build", "lb-", "cmp-03", late_build),
]


def as_lines(told: dict[str, list[Told]]) -> list[str]:
    return [f"{name}: {json.dumps(message)}" for name, messages in sorted(told.items()) for message in messages]


@pytest.fixture(scope="module", params=STORIES, ids=[story[0] for story in STORIES])
def played(request: pytest.FixtureRequest) -> tuple[str, str, str, Stage]:
    name, prefix, home, play = request.param
    stage = Stage()
    play(stage)
    return name, prefix, home, stage


def test_same_acts_same_messages(played: tuple[str, str, str, Stage]) -> None:
    """What a real Nova said about each server when this was done to it, the simulator says too, in the same order."""
    name, prefix, _, stage = played
    said = sequences(stage.said, controller="ctl", prefix=prefix)
    assert as_lines(said) == as_lines(recorded(name))


@pytest.mark.parametrize(("name", "play"), UNSAMPLED)
def test_same_acts_same_messages_unsampled(name: str, play: Callable[[Stage], None]) -> None:
    """So it does in stories of which only the bus was recorded."""
    stage = Stage()
    stage.cloud.knobs.set("live_migration", seconds=4)
    play(stage)
    said = sequences(stage.said, controller="ctl", prefix=f"{name}-")
    assert as_lines(said) == as_lines(recorded(name))


def test_same_acts_same_migration_statuses(played: tuple[str, str, str, Stage]) -> None:
    """Every status that was sampled of a real migration is passed in the simulator too, in that order."""
    name, _, _, stage = played
    sampled: dict[str, list[str]] = recorded(f"{name}.truth")["statuses"]
    assert stage.statuses.keys() == sampled.keys()
    for migration, statuses in sampled.items():
        passed = iter(stage.statuses[migration])
        assert all(status in passed for status in statuses), (migration, statuses, stage.statuses[migration])
        assert stage.statuses[migration][-1] == statuses[-1]


def test_same_acts_same_allocations(played: tuple[str, str, str, Stage]) -> None:
    """In the end the same consumers hold something in Placement as did with a real Nova, leaks included."""
    name, _, home, stage = played
    assert stage.held(home) == recorded(f"{name}.truth")["held"]


def test_copies_are_one_save_behind(played: tuple[str, str, str, Stage]) -> None:
    """`updated_at` in an instance.update is the time of the save before it, as in every recording."""
    _, _, _, stage = played
    last: dict[str, str | None] = {}
    for _, message in stage.said:
        data = message["payload"]["nova_object.data"]
        if message["event_type"] != "instance.update":
            continue
        if data["uuid"] in last and data["state"] != "building":
            assert data["updated_at"] == last[data["uuid"]]
        last[data["uuid"]] = message["timestamp"].split(".")[0].replace(" ", "T") + "Z"
