"""What a cloud costs in which nothing is closed and nothing moves: calls in any ten minutes, at two sizes.

Half an hour of it, on a clock of our own, the schedule worked through as APScheduler would; the simulated Nova answers
over real HTTP. The number of servers matters to none of it (nothing has changed), that of hosts does: Nova gives a
thousand compute nodes a call.
"""

from __future__ import annotations

import uuid

from bench import calls
from bench.support import Row, Setting, tell
from maintd.clock import ManualClock
from maintd.config import CloudConfig
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Policy
from maintd.domain.observations import BusSeen
from maintd.ingest.admit import Admission
from maintd.ingest.budget import Budget
from maintd.ingest.polls import Limits, Polls
from maintd.nova.api import NovaApi
from maintd.simulator import Cloud
from maintd.simulator.rest import RestServer

BAR_SERVICES, BAR_OTHERS = 20, 15
PERIOD_S = 1800.0


def measure(setting: Setting) -> Row:
    """Let half an hour pass over a small cloud and over a large one."""
    sizes = (20, 300) if setting.quick else (1_000, 10_000)
    found = {hosts: _a_while(hosts) for hosts in sizes}
    services = max(one["services"] for one in found.values())
    others = max(one["others"] for one in found.values())
    return Row(
        f"nothing closed, nothing moving, at {sizes[0]} and {sizes[1]} hosts: services / other lists in ten minutes",
        f"<= {BAR_SERVICES} / {BAR_OTHERS}",
        f"{services} / {others}",
        services <= BAR_SERVICES and others <= BAR_OTHERS,
        {str(hosts): one for hosts, one in found.items()},
    )


def _a_while(hosts: int) -> dict[str, int]:
    clock = ManualClock(1_780_000_000.0)
    cloud = Cloud(clock)
    cloud.fill(hosts, 2)
    clock.advance(86400.0)
    rest = RestServer(cloud, threads=4).start()
    try:
        fleet = Fleet(Policy(has_cloud=True, has_bus=True))
        door = Admission(fleet, clock=clock, ids=lambda: uuid.uuid4().hex, installation="bench")
        door.admit((BusSeen(clock.now(), Because("clock"), "default", "connected"),))

        def wait(seconds: float) -> bool:
            clock.advance(seconds)
            return False

        options = {"auth_type": "password", **rest.cloud_config()["auth"]}
        api = NovaApi(CloudConfig(options=options, region_name="RegionOne", timeout_s=30.0), clock, pause=wait)
        limits = Limits()
        polls = Polls(api, door, clock, limits=limits, pace=Budget(clock, wait).take)
        if polls.whole_once() is not True:
            raise RuntimeError(f"the cloud was not read: {polls.errors()}")
        tell(f"{hosts} hosts: {len(rest.api.seen)} calls to read all of it; half an hour passes")
        jobs = {
            polls.look_at_services: limits.services_s,
            polls.look_at_heartbeats: limits.heartbeats_s,
            polls.reconcile: limits.reconcile_s,
            polls.look_at_drains: 5.0,
            polls.look_at_progress: limits.progress_turn_s,
            polls.look_at_emptied: 15.0,
        }
        due = {job: clock.now() + seconds for job, seconds in jobs.items()}
        end = clock.now() + PERIOD_S
        windows: list[dict[str, int]] = []
        window_ends, taken = clock.now() + 600.0, len(rest.api.seen)
        while clock.now() <= end:
            job = min(due, key=lambda one: due[one])
            clock.move_to(max(clock.now(), due[job]))
            if due[job] > window_ends:
                kinds = calls.tally(rest.api.seen[taken:], 0.0, float("inf")).kinds
                windows.append(kinds)
                window_ends, taken = window_ends + 600.0, len(rest.api.seen)
            due[job] += jobs[job]
            if job() is not True:
                raise RuntimeError(f"{job.__name__} failed: {polls.errors()}")
            polls.whole_once()
            polls.look_at_ends()
            if polls.passes_due():
                raise RuntimeError("nothing is closed, yet a pass is wanted")
    finally:
        rest.stop()
    services = [window.get("/os-services", 0) for window in windows]
    others = [sum(window.values()) - window.get("/os-services", 0) for window in windows]
    tell(f"in each ten minutes: services {services}, other lists {others}")
    return {"services": max(services), "others": max(others), "windows": len(windows)}
