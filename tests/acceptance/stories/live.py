"""Live migrations: that succeed, are aborted, fail in every way, or are cut short by nova-compute itself."""

from __future__ import annotations

from tests.acceptance.cloud import CloudSays, until
from tests.acceptance.judge import Facts
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import GRACE_S, begin, drain_live, emptied, first, reopen, rest, stay, told_of


def drain(stage: Stage) -> Facts:
    """A host is closed and everything live-migrated away."""
    facts = begin(stage)
    drain_live(stage, facts.servers)
    emptied(stage, facts)
    return reopen(stage, facts)


def abort(stage: Stage) -> Facts:
    """One live migration is aborted, then asked for again: told as cancelled, and empty only after the second."""
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.cloud.live_migrate(server_id, stage.options.to)
    _abort(stage, server_id, ("queued", "preparing", "running"))
    stage.settled(one, lambda s: s["status"] == "ACTIVE", "ACTIVE after the abort")
    told_of(stage, "migration.cancelled", one)
    drain_live(stage, facts.servers)
    emptied(stage, facts)
    return reopen(stage, facts)


def abort_queued(stage: Stage) -> Facts:
    """A live migration is aborted that waits behind another: no compute ever acts on it, and the server stays."""
    stage.need(knob=True, servers=2)
    facts = begin(stage)
    last = dict(list(facts.servers.items())[-1:])
    stage.wish({i: {"live_migration": {"mode": "slow", "seconds": 300}} for i in facts.servers})
    for server_id in facts.servers:
        stage.cloud.live_migrate(server_id, stage.options.to)
    _abort(stage, next(iter(last)), ("queued",))
    stage.wish({})
    stage.settled(last, lambda s: s["status"] == "ACTIVE", "ACTIVE after the abort")
    told_of(stage, "migration.cancelled", last)
    others = {i: name for i, name in facts.servers.items() if i not in last}
    stage.away(others)
    stage.blocked({("last_attempt_failed", server_id) for server_id in last})
    stay(stage, facts)
    drain_live(stage, last)
    emptied(stage, facts)
    return reopen(stage, facts)


def _abort(stage: Stage, server_id: str, statuses: tuple[str, ...]) -> None:
    """Abort a live migration as soon as it can be."""

    def aborted() -> bool:
        row = stage.cloud.rows(server_id)
        if not row or row[0]["status"] not in statuses:
            if row and row[0]["status"] in ("running", "completed", "failed", "error"):
                raise Fault(
                    f"the live migration was {row[0]['status']} before one could be aborted: slow this cloud down"
                )
            return False
        try:
            stage.cloud.abort(server_id, row[0]["id"])
        except CloudSays:
            return False
        return True

    if not until(aborted, 60.0, 0.2):
        raise Fault("the live migration could not be aborted")
    stage.say(f"server migration abort {server_id}")


def force_complete(stage: Stage) -> Facts:
    """A live migration that would never end is forced to: it is told as completed, like any other."""
    stage.need(knob=True)
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"live_migration": {"mode": "diverge", "seconds": 6, "floor": 0.2}}})
    stage.cloud.live_migrate(server_id, stage.options.to)
    found = until(lambda: stage.cloud.migration(server_id), 60.0, 0.3)
    if not found or not until(lambda: _forced(stage, server_id, found["id"]), 60.0, 0.5):
        raise Fault("the live migration could not be forced to complete")
    stage.say("server migration force complete")
    stage.away(one)
    drain_live(stage, rest(facts.servers))
    emptied(stage, facts)
    return reopen(stage, facts)


def _forced(stage: Stage, server_id: str, number: int) -> bool:
    try:
        stage.cloud.force_complete(server_id, number)
    except CloudSays:
        return False
    return True


def fail(stage: Stage) -> Facts:
    """One is rolled back, one fails before it begins: both are told as failed, and keep the host until they go."""
    stage.need(knob=True)
    facts = begin(stage)
    steps: list[dict[str, object]] = [
        {"live_migration": {"mode": "fail", "seconds": 3}},
        {"pre_live_migration": {"fail": True}},
    ]
    return _fail_and_retry(stage, facts, {i: steps[n % 2] for n, i in enumerate(facts.servers)})


def crash(stage: Stage) -> Facts:
    """The driver raises while one is under way: Nova says nothing, leaves the server here in ERROR, and leaks."""
    stage.need(knob=True)
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"live_migration": {"mode": "error", "seconds": 3}}})
    stage.cloud.live_migrate(server_id, stage.options.to)
    stage.say("server migrate --live-migration, for one")
    stage.settled(one, lambda s: s["status"] == "ERROR", "into ERROR")
    told_of(stage, "migration.failed", one)
    drain_live(stage, rest(facts.servers))
    stage.blocked({("last_attempt_failed", server_id)})
    stay(stage, facts)
    stage.wish({})
    stage.cloud.act(server_id, "os-resetState", {"state": "active"})
    stage.settled(one, lambda s: s["status"] == "ACTIVE", "ACTIVE again")
    drain_live(stage, one)
    return _leaked(stage, facts, server_id)


def _leaked(stage: Stage, facts: Facts, server_id: str) -> Facts:
    """Nova forgets to free what its first migration held: maintd waits a grace of minutes, then warns of it."""
    leak = stage.cloud.rows(server_id)[0]["uuid"]
    facts.leaked = frozenset({leak})
    stage.blocked({("allocation", server_id)}, 60.0)
    facts.warnings = frozenset({("failed_migration", server_id), ("leftover_allocation", server_id)})
    emptied(stage, facts, GRACE_S)
    return reopen(stage, facts)


def _fail_and_retry(stage: Stage, facts: Facts, wishes: dict[str, dict[str, object]]) -> Facts:
    stage.wish(wishes)
    for server_id in facts.servers:
        stage.cloud.live_migrate(server_id, stage.options.to)
    stage.say("server migrate --live-migration, for every server")
    told_of(stage, "migration.failed", facts.servers)
    stage.settled(facts.servers, lambda s: s["status"] == "ACTIVE", "ACTIVE after the failure")
    stage.blocked({("last_attempt_failed", server_id) for server_id in facts.servers})
    stay(stage, facts)
    stage.wish({})
    drain_live(stage, facts.servers)
    facts.warnings = frozenset(("failed_migration", server_id) for server_id in facts.servers)
    emptied(stage, facts)
    return reopen(stage, facts)


def nowhere(stage: Stage) -> Facts:
    """Asked to go where it is, a server finds no host: no compute ever acts, and it is told as failed all the same."""
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.cloud.live_migrate(server_id, stage.host)
    stage.say("server migrate --live-migration to the host that it is on")
    told_of(stage, "migration.failed", one)
    stage.settled(one, lambda s: s["status"] == "ACTIVE", "ACTIVE after the refusal")
    drain_live(stage, rest(facts.servers))
    stage.blocked({("last_attempt_failed", server_id)})
    stay(stage, facts)
    drain_live(stage, one)
    facts.warnings = frozenset({("failed_migration", server_id)})
    emptied(stage, facts)
    return reopen(stage, facts)


def post_failure(stage: Stage) -> Facts:
    """One fails when it has arrived: Nova leaks what it held here, and maintd warns of it after a grace."""
    stage.need(knob=True)
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"post_at_destination": {"fail": True}}})
    stage.cloud.live_migrate(server_id, stage.options.to)
    stage.settled(one, lambda s: s["status"] == "ERROR", "into ERROR")
    stage.wish({})
    told_of(stage, "migration.failed", one)
    drain_live(stage, rest(facts.servers))
    return _leaked(stage, facts, server_id)


def restart(stage: Stage) -> Facts:
    """nova-compute is restarted under a live migration: the guest stays, it is told as failed, and Nova leaks."""
    stage.need(compute=True, knob=True)
    facts = begin(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"live_migration": {"mode": "slow", "seconds": 120}}})
    stage.cloud.live_migrate(server_id, stage.options.to)
    if not until(lambda: (stage.cloud.migration(server_id) or {}).get("status") == "running", 60.0, 0.3):
        raise Fault("the live migration does not run")
    stage.compute(start=False, wait=False)
    stage.wish({})
    stage.compute(start=True)
    stage.settled(one, lambda s: s["OS-EXT-SRV-ATTR:host"] == stage.host, f"left on {stage.host} without a task")
    told_of(stage, "migration.failed", one)
    stay(stage, facts)
    drain_live(stage, facts.servers)
    return _leaked(stage, facts, server_id)


STORIES = (drain, abort, abort_queued, force_complete, fail, crash, nowhere, post_failure, restart)
