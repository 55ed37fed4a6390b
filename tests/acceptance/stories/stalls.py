"""Live migrations that stand still, or go on for ever: called so with the right reason, and what comes of each.

A real Nova, whose driver can be told to be stuck or to diverge. Every verdict is published: `[stall] observe_only` is
empty.
"""

from __future__ import annotations

from typing import Any

from tests.acceptance.cloud import CloudSays, until
from tests.acceptance.judge import Facts
from tests.acceptance.receiver import Heard
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import begin, drain_live, emptied, first, of, reopen, rest
from tests.acceptance.subject import Settings

ALL_SAID: Settings = {"stall": {"observe_only": ""}}
CALLED_S = 180.0


def frozen(stage: Stage) -> Facts:
    """The counters of one stop: it is called frozen, resumes when they move again, and the host empties after all."""
    stage.need(knob=True)
    facts = begin(stage, ALL_SAID)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"live_migration": {"mode": "stuck", "seconds": 10, "floor": 0.4}}})
    stage.cloud.live_migrate(server_id, stage.options.to)
    stage.say("server migrate --live-migration, which gets stuck")
    said = _stalled(stage, server_id, "frozen")
    if not 55.0 <= float(said["evidence"]["held_seconds"]) <= 90.0:
        raise Fault(f"called frozen after {said['evidence']['held_seconds']} s")
    stage.blocked({("stalled", server_id), *(("not_attempted", i) for i in rest(facts.servers))})
    stage.wish({server_id: {"live_migration": {"mode": "converge", "seconds": 10}}})
    stage.say("the link works again")
    stage.expect("migration.resumed", 60.0, lambda h: of(server_id)(h) and h.data["reason"] == "frozen")
    stage.away(one)
    drain_live(stage, rest(facts.servers))
    emptied(stage, facts)
    return reopen(stage, facts)


def not_converging(stage: Stage) -> Facts:
    """One copies busily and never ends: it is called not converging, with what Nova will do; forced, it completes."""
    stage.need(knob=True)
    facts = begin(stage, ALL_SAID)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"live_migration": {"mode": "diverge", "seconds": 20, "floor": 0.3}}})
    stage.cloud.live_migrate(server_id, stage.options.to)
    stage.say("server migrate --live-migration, of a guest that writes without end")
    said = _stalled(stage, server_id, "not_converging")
    if said["eta"] is not None or said["evidence"]["nova"]["then"] != "abort":
        raise Fault(f"the evidence does not say what Nova will do: {said['evidence']}")
    row = stage.cloud.rows(server_id)[0]

    def forced() -> bool:
        try:
            stage.cloud.force_complete(server_id, row["id"])
        except CloudSays:
            return False
        return True

    if not until(forced, 60.0, 0.5):
        raise Fault("the live migration could not be forced to complete")
    stage.say("server migration force complete")
    stage.away(one)
    stage.expect("migration.completed", 60.0, of(server_id))
    drain_live(stage, rest(facts.servers))
    emptied(stage, facts)
    return reopen(stage, facts)


def _stalled(stage: Stage, server_id: str, reason: str) -> dict[str, Any]:
    """The first verdict on this server is for this reason."""
    heard: Heard = stage.expect("migration.stalled", CALLED_S, of(server_id))
    if heard.data["reason"] != reason:
        raise Fault(f"it was called {heard.data['reason']}, not {reason}")
    if not heard.data["advice"] or heard.data["evidence"]["phase"] != "running":
        raise Fault(f"the verdict is not explained: {heard.data}")
    return dict(heard.data)


STORIES = (frozen, not_converging)
