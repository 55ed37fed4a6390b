"""A host whose nova-compute is down: what is evacuated from it or deleted there may still be on its disks, or even run.

Nova shows some of it, and forgets the rest. No host may be called empty for what Nova has forgotten.
"""

from __future__ import annotations

import time

from tests.acceptance.cloud import CloudSays, until
from tests.acceptance.judge import Facts
from tests.acceptance.stage import Fault, Stage
from tests.acceptance.stories.common import (
    LAST,
    REASON,
    SOON_S,
    emptied,
    first,
    reopen,
    rest,
    shut,
    stay,
    told_of,
)
from tests.acceptance.subject import Settings

TRUST_REAP = {"residue": {"trust_reap": "true"}}
BACK_S = 150.0
"""How long nova-compute may take to start and clean up, beyond what a proof takes."""


def evacuate(stage: Stage) -> Facts:
    """A host dies and is evacuated: not empty while its guests may still be there, empty once its compute is back."""
    facts = _evacuated(stage)
    stage.blocked(_residue(facts))
    stay(stage, facts)
    facts.held_until = time.time()
    stage.compute(start=True)
    _lift(stage)
    emptied(stage, facts, BACK_S)
    return reopen(stage, facts)


def accept(stage: Stage) -> Facts:
    """A host dies for good, and [drain] accept_residue is set: empty though the compute is gone, the residue named."""
    facts = _evacuated(stage, {"drain": {"accept_residue": "true"}})
    said = emptied(stage, facts)
    named = {note["server_id"] for note in said.data["residue"]}
    if named != facts.servers.keys():
        raise Fault(f"host.emptied names the residue of {named}, not of each evacuated server")
    facts.residue_accepted = True
    stage.compute(start=True)
    _lift(stage)
    return reopen(stage, facts)


def evacuate_delete(stage: Stage) -> Facts:
    """Evacuated, then deleted where they went: Nova forgets it all, even with the compute back; an operator looks."""
    facts = _evacuated(stage)
    stage.note_rows(facts.servers)
    stage.delete(facts.servers)
    stage.blocked(_residue(facts))
    stay(stage, facts)
    stage.compute(start=True)
    _lift(stage)
    stage.up()
    stay(stage, facts)
    stage.blocked(_residue(facts))
    facts.held_until = stage.clear_residue()
    emptied(stage, facts, BACK_S)
    return reopen(stage, facts)


def evacuate_failure(stage: Stage) -> Facts:
    """One evacuation fails: its server is still here, not residue, until it is evacuated after all."""
    stage.need(knob=True)
    facts = _dead(stage)
    one = first(facts.servers)
    (server_id,) = one
    stage.wish({server_id: {"spawn": {"fail": True}}})
    stage.cloud.evacuate(server_id, stage.options.to)
    stage.settled(one, lambda s: s["status"] == "ERROR", "into ERROR")
    stage.wish({})
    told_of(stage, "migration.failed", one)
    _evacuate(stage, rest(facts.servers))
    stage.blocked({("last_attempt_failed", server_id)} | {("residue", i) for i in rest(facts.servers)})
    stay(stage, facts)
    _evacuate(stage, one)
    stage.blocked(_residue(facts))
    facts.held_until = time.time()
    facts.warnings = frozenset({("failed_migration", server_id)})
    stage.compute(start=True)
    _lift(stage)
    emptied(stage, facts, BACK_S)
    return reopen(stage, facts)


def delete_down(stage: Stage) -> Facts:
    """Deleted while the host cannot be reached: Nova shows nothing any more, even when it is back; somebody looks."""
    return _deleted(stage, None)


def force_delete_down(stage: Stage) -> Facts:
    """The same by force, of which Nova says nothing at all."""
    return _deleted(stage, "forceDelete")


def _deleted(stage: Stage, action: str | None) -> Facts:
    facts = _silent(stage)
    stage.delete(facts.servers, action)
    stage.blocked(_residue(facts))
    stay(stage, facts)
    stage.compute(start=True)
    stage.up()
    stage.recovered()  # maintd has seen it, too: what its return proves shows only then
    stay(stage, facts)
    stage.blocked(_residue(facts))
    facts.held_until = stage.clear_residue()
    emptied(stage, facts)
    return reopen(stage, facts)


def delete_down_cleared(stage: Stage) -> Facts:
    """Deleted while the host is forced down, and an operator looks before it is back: empty from then on."""
    facts = _dead(stage)
    stage.delete(facts.servers)
    stage.blocked(_residue(facts))
    stay(stage, facts)
    facts.held_until = stage.clear_residue()
    emptied(stage, facts)
    stage.compute(start=True)
    _lift(stage)
    return reopen(stage, facts)


def delete_down_trusted(stage: Stage) -> Facts:
    """With [residue] trust_reap, the compute's return is enough."""
    return _trusted(stage, None)


def force_delete_down_trusted(stage: Stage) -> Facts:
    """The same by force."""
    return _trusted(stage, "forceDelete")


def _trusted(stage: Stage, action: str | None) -> Facts:
    facts = _silent(stage, TRUST_REAP)
    stage.delete(facts.servers, action)
    stage.blocked(_residue(facts))
    stay(stage, facts)
    facts.held_until = time.time()
    stage.compute(start=True)
    emptied(stage, facts, BACK_S)
    return reopen(stage, facts)


def _residue(facts: Facts) -> set[tuple[str, str]]:
    return {("residue", server_id) for server_id in facts.servers}


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


def _silent(stage: Stage, settings: Settings | None = None) -> Facts:
    """Servers on a host whose compute is stopped, and closed as soon as Nova shows that: nobody has forced it down."""
    stage.need(compute=True)
    servers = stage.create()
    stage.go(settings)
    facts = Facts(stage.host, stage.options.settle_s, REASON, servers, stage.watch(), host_events=_EVENTS, loose=LAST)
    stage.compute(start=False)
    shut(stage, facts)
    return facts


_EVENTS = ("service.disabled", "drain.started", "host.emptied", *sorted(LAST))


def _dead(stage: Stage, settings: Settings | None = None) -> Facts:
    """Servers on a host whose compute is stopped, forced down and closed."""
    stage.need(compute=True)
    servers = stage.create()
    stage.go(settings)
    facts = Facts(
        stage.host,
        stage.options.settle_s,
        REASON,
        servers,
        stage.watch(),
        host_events=("service.forced_down", *_EVENTS, "service.force_down_lifted"),
        loose=LAST | {"service.force_down_lifted", "service.disabled", "service.forced_down", "drain.started"},
    )
    stage.compute(start=False)
    stage.force_down(True)
    stage.expect("service.forced_down", SOON_S)
    facts.requests["service.disabled"] = stage.shut(REASON)
    stage.expect("service.disabled", SOON_S)
    return facts


def _evacuated(stage: Stage, settings: Settings | None = None) -> Facts:
    """The same, with every server evacuated."""
    facts = _dead(stage, settings)
    _evacuate(stage, facts.servers)
    return facts


def _evacuate(stage: Stage, servers: dict[str, str]) -> None:
    for server_id in servers:
        stage.cloud.evacuate(server_id, stage.options.to)
    stage.say(f"server evacuate, for {len(servers)}")
    stage.away(servers)
    told_of(stage, "migration.completed", servers)


STORIES = (
    evacuate,
    accept,
    evacuate_delete,
    evacuate_failure,
    delete_down,
    force_delete_down,
    delete_down_cleared,
    delete_down_trusted,
    force_delete_down_trusted,
)
