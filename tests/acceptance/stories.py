"""The stories, each a function: what an operator does, and what has to be heard. Returns the facts to be judged by.

`drain` is the main one. The others are the rarer ways of leaving a host, and each of them must end the same: one
`host.emptied`, never early, and not before the thing is really over.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.acceptance.cloud import CloudSays, until
from tests.acceptance.judge import Facts
from tests.acceptance.receiver import Heard
from tests.acceptance.stage import Fault, Stage

REASON = "maintenance: acceptance story"

A_DRAIN = (
    "service.disabled",
    "drain.started",
    "host.emptied",
    "service.enabled",
    "host.reopened",
    "drain.ended",
)
LAST = frozenset({"service.enabled", "host.reopened", "drain.ended"})
SOON_S = 15.0
"""How long a thing may take that follows at once."""


def _close(stage: Stage, host_events: tuple[str, ...] = A_DRAIN, loose: frozenset[str] = LAST) -> Facts:
    """Servers on a host, maintd beside it, the host watched, then closed."""
    servers = stage.create()
    stage.go()
    facts = Facts(
        stage.host, stage.options.settle_s, REASON, servers, stage.watch(), host_events=host_events, loose=loose
    )
    request_id = stage.shut(REASON)
    facts.requests |= {"service.disabled": request_id, "drain.started": request_id}
    stage.expect("service.disabled", SOON_S)
    stage.expect("drain.started", SOON_S)
    return facts


def _emptied(stage: Stage, facts: Facts, within_s: float = 60.0) -> Heard:
    return stage.expect("host.emptied", facts.settle_s + within_s)


def _open(stage: Stage, facts: Facts) -> Facts:
    """The host is opened, the drain has to end, and the story is over."""
    facts.opened_at = time.time()
    request_id = stage.open()
    facts.requests |= {"service.enabled": request_id, "host.reopened": request_id, "drain.ended": request_id}
    stage.expect("drain.ended", SOON_S)
    return stage.gather(facts)


def drain(stage: Stage) -> Facts:
    """A host is closed and everything live-migrated away."""
    facts = _close(stage)
    for server_id in facts.servers:
        stage.cloud.live_migrate(server_id)
    stage.say("server migrate --live-migration, for every server")
    stage.away(facts.servers)
    _emptied(stage, facts)
    return _open(stage, facts)


def cold(stage: Stage) -> Facts:
    """Cold migrations: the host is not empty until each is confirmed."""
    facts = _close(stage)
    for server_id in facts.servers:
        stage.cloud.act(server_id, "migrate", None, "2.55")
    stage.say("server migrate, for every server")
    stage.settled(facts.servers, lambda s: s["status"] == "VERIFY_RESIZE", "to VERIFY_RESIZE")
    for server_id in facts.servers:
        stage.expect("migration.awaiting_confirmation", 60.0, lambda h, i=server_id: h.data["server_id"] == i)  # type: ignore[misc]
    stage.say("all wait for confirmation; nothing may be called empty now")
    stage.none_comes("host.emptied", facts.settle_s + 5.0)
    kinds = {(b["kind"], b["server_id"]) for b in stage.blockers()}
    if kinds != {("unconfirmed_resize", server_id) for server_id in facts.servers}:
        raise Fault(f"the host's blockers are {kinds}, not an unconfirmed_resize for each server")
    for server_id in facts.servers:
        stage.cloud.act(server_id, "confirmResize", None, "2.55")
    stage.say("server migration confirm, for every server")
    stage.settled(facts.servers, lambda s: s["status"] != "VERIFY_RESIZE", "confirmed")
    _emptied(stage, facts)
    return _open(stage, facts)


def abort(stage: Stage) -> Facts:
    """One live migration is aborted, then asked for again: told as cancelled, and empty only after the second."""
    facts = _close(stage)
    server_id = next(iter(facts.servers))
    stage.cloud.live_migrate(server_id)

    def aborted() -> bool:
        row = stage.cloud.rows(server_id)[-1:]
        if not row or row[0]["status"] not in ("queued", "preparing", "running"):
            if row and row[0]["status"] in ("completed", "failed", "error"):
                raise Fault("the live migration was over before it could be aborted; slow this cloud down")
            return False
        try:
            path = f"/servers/{server_id}/migrations/{row[0]['id']}"
            stage.cloud.call("compute", "DELETE", path, "2.65")
        except CloudSays:
            return False
        return True

    if not until(aborted, 60.0, 0.2):
        raise Fault("the live migration could not be aborted")
    stage.say(f"server migration abort {facts.servers[server_id]}")
    stage.settled({server_id: ""}, lambda s: s["status"] == "ACTIVE", "ACTIVE after the abort")
    stage.expect("migration.cancelled", 45.0, lambda h: h.data["server_id"] == server_id)
    for again in facts.servers:
        stage.cloud.live_migrate(again)
    stage.say("server migrate --live-migration, for every server")
    stage.away(facts.servers)
    _emptied(stage, facts)
    return _open(stage, facts)


def evacuate(stage: Stage) -> Facts:
    """A host dies and is evacuated: not empty while its guests may still be there, empty once its compute is back."""
    facts = _dead(stage, {})
    stage.none_comes("host.emptied", facts.settle_s + 5.0)
    kinds = {(b["kind"], b["server_id"]) for b in stage.blockers()}
    if not {("residue", server_id) for server_id in facts.servers} <= kinds:
        raise Fault(f"the host's blockers are {kinds}, without a residue for each server")
    stage.say("every server is blocked by its residue, as it must be")
    stage.compute(start=True)
    _lift(stage)
    _emptied(stage, facts, within_s=150.0)
    return _open(stage, facts)


def accept(stage: Stage) -> Facts:
    """A host dies for good, and [drain] accept_residue is set: empty though the compute is gone, the residue named."""
    facts = _dead(stage, {"accept_residue": "true"})
    emptied = _emptied(stage, facts)
    named = {note["server_id"] for note in emptied.data["residue"]}
    if named != facts.servers.keys():
        raise Fault(f"host.emptied names the residue of {named}, not of each evacuated server")
    facts.residue_accepted = True
    stage.compute(start=True)
    _lift(stage)
    return _open(stage, facts)


def _lift(stage: Stage) -> None:
    """Lift the force-down; Nova refuses until the compute has dealt with what was evacuated from it."""

    def lifted() -> bool:
        try:
            stage.force_down(False)
            return True
        except CloudSays:
            return False

    if not until(lifted, 120.0, 3.0):
        raise Fault("Nova would not lift the force-down")
    stage.expect("service.force_down_lifted", SOON_S)


def _dead(stage: Stage, drain: dict[str, str]) -> Facts:
    """Servers on a host whose compute is stopped, forced down, closed and evacuated."""
    servers = stage.create()
    stage.go(drain)
    watcher = stage.watch()
    stage.compute(start=False)
    events = ("service.forced_down", "service.disabled", "drain.started", "host.emptied", *sorted(LAST))
    facts = Facts(
        stage.host,
        stage.options.settle_s,
        REASON,
        servers,
        watcher,
        host_events=(*events, "service.force_down_lifted"),
        loose=LAST | {"service.force_down_lifted", "service.disabled", "service.forced_down", "drain.started"},
    )
    stage.force_down(True)
    stage.expect("service.forced_down", SOON_S)
    facts.requests["service.disabled"] = stage.shut(REASON)
    stage.expect("service.disabled", SOON_S)
    for server_id in servers:
        stage.cloud.act(server_id, "evacuate", {})
    stage.say("server evacuate, for every server")
    stage.away(servers)
    for server_id in servers:
        stage.expect("migration.completed", 60.0, lambda h, i=server_id: h.data["server_id"] == i)  # type: ignore[misc]
    return facts


STORIES: dict[str, Callable[[Stage], Facts]] = {
    story.__name__: story for story in (drain, cold, abort, evacuate, accept)
}
"""By name."""
